"""A real browser (Debian's chromium, through Playwright), and a gateway that records."""

import shutil
import threading
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from playwright.sync_api import sync_playwright

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")
# What needs the internet is off: here it would only wait for it. Containers have little /dev/shm.
FLAGS = (
    "--no-sandbox --disable-dev-shm-usage --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync"
).split()
# A page of suggestions for each window, and renderers in case they will be needed: they take more
# time than our pages.
UNNEEDED = "WebUIOmniboxPopup,WebUIOmniboxAimPopup,SpareRendererForSitePerProcess"
# The last of two such flags counts, so that Playwright's own (1.65.2) has to be said again.
PLAYWRIGHTS = (
    "AvoidUnnecessaryBeforeUnloadCheckSync,DestroyProfileOnBrowserClose,HttpsUpgrades,LensOverlay,"
    "HttpsFirstBalancedModeAutoEnable,MediaRouter,PaintHolding,ThirdPartyStoragePartitioning,"
    "AvoidCorsURLLoaderRestartOnRedirect,OptimizationHints,NetworkTimeServiceQuerying,AimEnabled,"
    "PreconnectToSearch"
)
FLAGS.append(f"--disable-features={UNNEEDED},{PLAYWRIGHTS}")
# A domain whose owner lets it mean this machine.
FLAGS.append("--host-resolver-rules=MAP evil.example 127.0.0.1")


@contextmanager
def chromium():
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=FLAGS)
        yield browser
        browser.close()


class Gateway(ThreadingHTTPServer):
    """Passes everything below `prefix` on, without the prefix, and keeps what was posted."""

    daemon_threads = True

    def __init__(self, url, prefix=""):
        super().__init__(("127.0.0.1", 0), Passing)
        self.behind, self.prefix, self.posted = urlsplit(url).netloc, prefix, []
        self.url = f"http://127.0.0.1:{self.server_address[1]}{prefix}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()


@contextmanager
def another_site(html):
    """A site with this page, at http://evil.example."""

    class Showing(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(html.encode())

    with ThreadingHTTPServer(("127.0.0.1", 0), Showing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://evil.example:{server.server_address[1]}/"
        server.shutdown()


class Passing(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def pass_on(self):
        server = self.server
        if not self.path.startswith(server.prefix):
            return self.send_error(404)
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        path = self.path[len(server.prefix) :] or "/"
        if self.command == "POST":
            server.posted.append((path, body))
        behind = HTTPConnection(server.behind)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
        behind.request(self.command, path, body or None, headers)
        answer = behind.getresponse()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "date", "server"):
                self.send_header(name, value)
        self.send_header("connection", "close")
        self.end_headers()
        try:
            while chunk := answer.read1():
                self.wfile.write(chunk)
                self.wfile.flush()
        except (OSError, HTTPException):  # the browser has left, or the app has ended
            pass
        behind.close()

    do_GET = do_POST = pass_on
