"""A door, instances and agents before the stand-in of ClearML's server, which notes when."""

from __future__ import annotations

import time
from typing import Any

import psutil

from tests.clearml_api import ApiServer
from tests.end_to_end.conftest import App
from tests.end_to_end.test_fleet import KEY, SECRET, Fleet


class TimedServer(ApiServer):
    """`times`: action → when it was first asked for, by the monotonic clock."""

    def __init__(self) -> None:
        super().__init__()
        self.times: dict[str, float] = {}

    def answer(self, action: str, fields: dict[str, Any], body: str) -> Any:
        self.times.setdefault(action, time.monotonic())
        return super().answer(action, fields, body)


class Machines(Fleet):
    alone = True

    def serve(self, route: str, slots: int, context: int, cache: int) -> App:
        """An instance of a route: its slots share so many tokens, beside `cache` MiB of prompts in
        memory."""
        self.count += 1
        folder = self.folder / f"instance{self.count}"
        folder.mkdir()
        sets = {
            "General/gateway_route": route,
            "Model/threads": 1,
            "Model/endpoint_name": "tiny",
            "Model/parallel": slots,
            "Model/context_size": context,
            "Model/extra_args": f"--cache-ram {cache}",
        }
        given = ["--model", self.weights, "--host", "127.0.0.1", "--port", "0"]
        given += [text for key, value in sets.items() for text in ("--set", f"{key}={value}")]
        secrets = {"LLAMACPP_ROUTE_SECRET": SECRET, "LLAMACPP_API_KEY": KEY}
        instance = App(folder, given, {**self.api.environment, **secrets}, alone=self.alone)
        self.stack.callback(instance.clean_up)
        return instance.ready()


def server_of(instance: App) -> tuple[str, str]:
    """Where the instance's llama-server listens, and its key."""
    (pid,) = instance.children
    process = psutil.Process(pid)
    line = process.cmdline()
    return line[line.index("--host") + 1], process.environ()["LLAMA_API_KEY"]
