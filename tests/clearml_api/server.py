"""The wire: any method, JSON in and out, HTTP/1.0 (the real server closes connections too).

It is the file server as well: what is uploaded as a form's file is kept.
"""

import email
import json
import threading
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, unquote, urlparse

from tests.clearml_api.state import ApiError, State, new_id
from tests.threaded import ThreadedServer


class ApiServer(ThreadedServer):
    """`with ApiServer() as api`: listens on a free port of this machine.

    `calls` are the actions in their order; `delay` holds every answer back by so many seconds;
    `failing` maps actions to the HTTP status they get; `behind` is the status of a proxy that
    answers everything but logins itself, with a page of HTML; while `locked` nobody is let in, and
    nobody gets a token; `files` are those uploaded, by path; `ahead` are seconds of its clock.
    """

    def __init__(self, **options):
        self.state = State(**options)
        self.calls, self.delay, self.failing = [], 0.0, {}
        self.behind, self.locked = None, False
        self.files, self.ahead = {}, 0.0
        self.lock = threading.RLock()

    def handler(self):
        return type("Bound", (Handler,), {"api": self})

    @property
    def environment(self):
        """What a client needs to find this server."""
        return {
            "CLEARML_API_HOST": self.url,
            "CLEARML_WEB_HOST": self.url,
            "CLEARML_FILES_HOST": self.url,
            "CLEARML_API_ACCESS_KEY": "access",
            "CLEARML_API_SECRET_KEY": "not-a-real-secret",
        }

    def answer(self, action, fields, body):
        with self.lock:
            self.calls.append(action)
        time.sleep(self.delay)
        if self.locked:
            raise ApiError(401, 0, "Unauthorized (invalid credentials)")
        if action in self.failing:
            raise ApiError(self.failing[action], 0, "told to fail")
        with self.lock:
            if action == "events.add_batch":
                events = [json.loads(line) for line in body.splitlines() if line.strip()]
                self.state.add_events(events)
                return {"added": len(events), "errors": 0, "errors_info": {}}
            return self.state.act(action, fields)

    def scalars(self):
        """(title, series) → the values in their order."""
        found = {}
        with self.lock:
            for event in self.state.events:
                if event.get("type") == "training_stats_scalar":
                    series = found.setdefault((event["metric"], event["variant"]), [])
                    series.append(event["value"])
        return found


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.0"
    api = None

    def log_message(self, *_):
        pass

    def _handle(self):
        url = urlparse(self.path)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Type", "").startswith("multipart/form-data"):
            head = f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode()
            (part,) = email.message_from_bytes(head + body).get_payload()
            name = part.get_param("name", header="content-disposition")  # the file's path
            self.api.files[unquote(str(name))] = part.get_payload(decode=True)
            return self._reply(200, b"{}")
        fields = {k: v if len(v) > 1 else v[0] for k, v in parse_qs(url.query).items()}
        if body and "json-lines" not in self.headers.get("Content-Type", ""):
            fields.update(json.loads(body))
        action = url.path.rsplit("/", 1)[-1]
        if self.api.behind is not None and action != "auth.login":
            return self._reply(self.api.behind, b"<html>Sign in</html>", "text/html")
        code, subcode, message, data = 200, 0, "OK", {}
        try:
            data = self.api.answer(action, fields, body.decode())
        except ApiError as error:
            code, subcode, message = error.code, error.subcode, str(error)
        meta = {
            "id": new_id(),
            "trx": new_id(),
            "endpoint": {"name": action, "requested_version": "2.32", "actual_version": "1.0"},
            "result_code": code,
            "result_subcode": subcode,
            "result_msg": message,
            "error_stack": "",
            "error_data": {},
        }
        self._reply(code, json.dumps({"meta": meta, "data": data}).encode())

    do_GET = do_POST = do_PUT = _handle

    def _reply(self, code, body, kind="application/json"):
        """Head and body in one piece: in two, each call would wait for a delayed ACK."""
        head = f"HTTP/1.0 {code} X\r\nContent-Type: {kind}\r\n"
        head += f"Date: {formatdate(time.time() + self.api.ahead, usegmt=True)}\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        try:
            self.wfile.write(head.encode() + body)
        except ConnectionError:
            pass
