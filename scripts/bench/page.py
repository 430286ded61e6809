"""What our page costs: bytes as sent, time to the first paint, events a second to 20 viewers
while 8 callers stream, and the share of one core that the app takes, with and without viewers.

With --screenshots FOLDER it takes the pictures for docs/ instead.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path

import psutil
from playwright.sync_api import Browser, sync_playwright

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from app.models import tiny  # noqa: E402

PORT = 18126
URL = f"http://127.0.0.1:{PORT}"
VIEWERS, CALLERS = 20, 8
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
BODY = {"messages": [{"role": "user", "content": "Hello"}], "stream": True, "max_tokens": 300}


@contextlib.contextmanager
def app(*arguments: str) -> Iterator[psutil.Process]:
    """Two tiny models, offline."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        model = str(tiny.ensure(Path(name)))
        models = [{"model": model, "endpoint_name": n} for n in ("alpha", "team/beta")]
        command = [sys.executable, "-m", "app", "--offline", "--cache-dir", name]
        command += ["--port", str(PORT), "--set", f"General/models={json.dumps(models)}"]
        with subprocess.Popen([*command, *arguments], cwd=ROOT, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            while process.stdout.readline() != b"ready\n":
                pass
            threading.Thread(target=process.stdout.read, daemon=True).start()
            yield psutil.Process(process.pid)
            process.terminate()


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        program = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        browser.close()


def size(encoding: str) -> int:
    request = urllib.request.Request(URL, headers={"Accept-Encoding": encoding})
    with urllib.request.urlopen(request) as answer:
        return len(answer.read())


def first_paint(browser: Browser, rounds: int) -> list[float]:
    """Milliseconds to the first contentful paint, each with an empty cache."""
    found = []
    for _ in range(rounds):
        page = browser.new_context().new_page()
        page.goto(URL)
        page.wait_for_timeout(300)
        script = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
        found.append(page.evaluate(script))
        page.context.close()
    return found


class Viewer(threading.Thread):
    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.connection = HTTPConnection("127.0.0.1", PORT)
        self.connection.request("GET", "/api/events")
        self.answer = self.connection.getresponse()
        self.events = 0
        self.ended = False

    def run(self) -> None:
        while not self.ended and (text := self.answer.readline()):
            if text.startswith(b"data: "):
                self.events += 1
        self.connection.close()


class Caller(threading.Thread):
    def __init__(self, name: str) -> None:
        super().__init__(daemon=True)
        self.name_of_model, self.ended, self.requests = name, False, 0

    def run(self) -> None:
        while not self.ended:
            request = urllib.request.Request(
                f"{URL}/{self.name_of_model}/v1/chat/completions", json.dumps(BODY).encode()
            )
            with urllib.request.urlopen(request) as answer:
                answer.read()
            self.requests += 1


def share(process: psutil.Process, seconds: float) -> float:
    """Percent of one core, of the app itself without its children."""

    def used() -> float:
        times = process.cpu_times()
        return float(times.user + times.system)

    before = used()
    time.sleep(seconds)
    return 100 * (used() - before) / seconds


def measure(rounds: int, seconds: float, pause: float) -> None:
    """`pause` seconds lie between what changes and what is measured."""
    with app() as process:
        time.sleep(2 * pause)  # what starts with it is over
        print(f"page: {size('identity'):,} bytes, {size('gzip'):,} compressed, one request")
        with chromium() as browser:
            paints = first_paint(browser, rounds)
            print(f"first contentful paint: {statistics.median(paints):.0f} ms, median of {rounds}")
        time.sleep(pause)
        print(f"idle: {share(process, seconds):.2f} % of a core")
        viewers = [Viewer() for _ in range(VIEWERS)]
        for viewer in viewers:
            viewer.start()
        print(f"idle, {VIEWERS} viewers: {share(process, seconds):.2f} % of a core")
        callers = [Caller(("alpha", "team/beta")[n % 2]) for n in range(CALLERS)]
        for caller in callers:
            caller.start()
        time.sleep(pause)
        before = sum(viewer.events for viewer in viewers)
        busy = share(process, seconds)
        told = sum(viewer.events for viewer in viewers) - before
        print(f"{CALLERS} callers, {VIEWERS} viewers: {told / seconds:.0f} events/s, {busy:.1f} %")
        for viewer in viewers:
            viewer.ended = True
        time.sleep(pause)
        print(f"{CALLERS} callers, no viewer: {share(process, seconds):.1f} % of a core")
        for caller in callers:
            caller.ended = True
            caller.join()


def screenshots(folder: Path) -> None:
    sizes = {
        "light": {"viewport": {"width": 1200, "height": 1540}},
        "dark": {"viewport": {"width": 1200, "height": 1540}, "color_scheme": "dark"},
        "phone": {"viewport": {"width": 390, "height": 844}},
    }
    folder.mkdir(parents=True, exist_ok=True)
    with app("--set", "Idle/idle_time_limit=2") as _, chromium() as browser:
        callers = [Caller("alpha"), Caller("alpha"), Caller("team/beta")]
        for caller in callers:
            caller.start()
            time.sleep(12)
        for caller in callers:
            caller.ended = True
            caller.join()
        time.sleep(11)
        for name, options in sizes.items():
            page = browser.new_context(**options).new_page()
            page.goto(URL)
            page.wait_for_timeout(1500)
            page.screenshot(path=folder / f"page-{name}.png")
            page.context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=9, help="loads of the page")
    parser.add_argument("--seconds", type=float, default=30, help="of each share of a core")
    parser.add_argument("--small", action="store_true", help="in a few seconds, for tests")
    parser.add_argument("--screenshots", type=Path, help="a folder: take the pictures instead")
    options = parser.parse_args()
    pause = 2.5
    if options.small:
        options.rounds, options.seconds, pause = 1, 0.5, 0.2
    if options.screenshots:
        screenshots(options.screenshots)
    else:
        measure(options.rounds, options.seconds, pause)


if __name__ == "__main__":
    main()
