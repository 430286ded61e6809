"""/api/history: the last requests, and which model was in memory when."""

from __future__ import annotations

import json

from app.gateway.http.request import Request
from app.gateway.keys_file import Holder
from app.gateway.pages.status import views_for
from app.gateway.proxy import Page
from app.telemetry.overview import Overview
from app.telemetry.past import Past, move_row, request_row


def history(past: Past, overview: Overview, holder: Holder) -> dict[str, object]:
    """A caller of the keys file is told of its own requests alone, and of the models that it may
    use."""
    models = {view.name for view in views_for(overview, holder)}
    requests = [ended for ended in past.requests() if holder.name in ("", ended.sample.caller)]
    return {
        "requests": [request_row(ended) for ended in requests if ended.sample.model in models],
        "moves": [move_row(model, move) for model, move in past.moves({}) if model in models],
    }


def page(past: Past, overview: Overview) -> Page:
    def show(request: Request, _: str | None, holder: Holder) -> None:
        request.reply(200, json.dumps(history(past, overview, holder)).encode())

    return show
