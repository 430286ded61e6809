"""An HTTP server in a thread of the test's own process, on a free port of this machine."""

import threading
from contextlib import contextmanager
from http.server import ThreadingHTTPServer


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    # A client that finds no place in the queue believes that it is connected, and waits.
    request_queue_size = 128


class ThreadedServer:
    """`with` it: serves while inside. `handler` makes the request handler's class."""

    def handler(self):
        raise NotImplementedError

    def __enter__(self):
        return self._listen(0)

    def _listen(self, port):
        self._server = _Server(("127.0.0.1", port), self.handler())
        # It looks so often, in seconds, whether it shall end.
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.02,), daemon=True
        )
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @contextmanager
    def away(self):
        """Inside, nobody listens; afterwards it does again, at the same address."""
        port = self._server.server_address[1]
        self.__exit__()
        try:
            yield
        finally:
            self._listen(port)

    @property
    def url(self):
        return f"http://127.0.0.1:{self._server.server_address[1]}"
