"""`python -m app`, with the number of its asyncio tasks in a file, since nothing outside can count
them: `watched.py FILE ARGUMENT…`."""

import asyncio
import sys
import threading
import time
from pathlib import Path

import uvloop

EVERY = 2.0  # seconds


def tell(loop: asyncio.AbstractEventLoop, file: Path) -> None:
    while True:
        file.write_text(str(len(asyncio.all_tasks(loop))))
        time.sleep(EVERY)


def main() -> None:
    file = Path(sys.argv[1])
    make = uvloop.new_event_loop

    def made() -> asyncio.AbstractEventLoop:
        loop = make()
        threading.Thread(target=tell, args=(loop, file), daemon=True).start()
        return loop

    uvloop.new_event_loop = made
    from app.main import main as run

    run(sys.argv[2:])


if __name__ == "__main__":
    main()
