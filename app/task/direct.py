"""Requests to ClearML's API server past the SDK: each is one try with a timeout.

The SDK tries a request again for hours, in its one thread. The last words of an instance must not
wait behind that. What is here blocks, and may run in any thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from app.task import api

UNAUTHORIZED = 401


class Direct:
    """With the SDK's own host, proxies, certificates and credentials."""

    def __init__(self, session: Any) -> None:
        """`session`: the SDK's, which has logged in; its token is the first that is used."""
        from clearml.backend_api.utils import get_http_session_with_retry

        self._session = session
        self._http = get_http_session_with_retry(config=session.config)  # by default without retry
        self._token = ""

    @property
    def verify(self) -> bool | str:
        """What certificates are checked against: a path, or whether they are at all."""
        return cast("bool | str", self._http.verify)

    def ask(
        self, service: str, action: str, fields: Mapping[str, Any], timeout: float
    ) -> dict[str, Any]:
        """Send a request; the data of the answer. Raises what `api.data` raises, and OSError where
        there is no answer within `timeout` seconds of silence."""
        return self.dated(service, action, fields, timeout)[0]

    def dated(
        self, service: str, action: str, fields: Mapping[str, Any], timeout: float
    ) -> tuple[dict[str, Any], str]:
        """As `ask`, with the answer's date, in HTTP's words; "" without one."""
        call = f"{service}.{action}"
        response = self._send(call, fields, timeout)
        if response.status_code == UNAUTHORIZED and self._session.access_key:
            self._log_in(timeout)
            response = self._send(call, fields, timeout)
        return api.data(call, response), str(response.headers.get("Date") or "")

    def _send(self, call: str, fields: Mapping[str, Any], timeout: float) -> Any:
        token = self._token or self._session.raw_token
        headers = {"Authorization": f"Bearer {token}"}
        url = f"{self._session.host}/{call}"
        return self._http.post(url, json=dict(fields), headers=headers, timeout=timeout)

    def _log_in(self, timeout: float) -> None:
        """The token may have expired while the server was away."""
        pair = (self._session.access_key, self._session.secret_key)
        url = f"{self._session.host}/auth.login"
        answer = api.data("auth.login", self._http.post(url, auth=pair, timeout=timeout))
        self._token = str(answer.get("token") or "")
