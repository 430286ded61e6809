"""Threads that are simulated: real ones, of which one runs at a time, and only while the loop
stands still. They give way where they would wait, so that each run is the same."""

import functools
import queue
import threading
from collections import deque
from concurrent.futures import TimeoutError as FutureTimeout


class Over(BaseException):
    """The simulation has ended: whoever still waits in a thread ends."""


class Lockstep:
    """The threads of one simulation."""

    def __init__(self, loop, failed):
        """`failed` is told of an exception that ends a thread."""
        self.loop = loop
        self.failed = failed
        self.over = False
        self.current = None
        self.threads = []
        self.back = threading.Semaphore(0)  # the turn is the loop's again

    def daemon(self, name, target):
        self.threads.append(thread := Thread(self, name, target))
        return thread

    def call(self, function, *arguments):
        """In a thread of its own, from now on."""
        self.daemon(function.__name__, functools.partial(function, *arguments)).start()

    def sleep(self, seconds):
        thread = self._thread()
        self.loop.call_later(seconds, thread.wake, thread.ticket)
        thread.park()

    def result(self, future, timeout):
        thread = self._thread()
        wake = functools.partial(self.loop.call_soon, thread.wake, thread.ticket)
        future.add_done_callback(lambda _: wake())
        timer = self.loop.call_later(timeout, wake)
        thread.park()
        timer.cancel()
        if not future.done():
            raise FutureTimeout
        return future.result()

    def queue(self, size=0):
        return Queue(self, size)

    def _thread(self):
        assert self.current is not None, "the loop itself would block"
        return self.current

    def end(self):
        """Every thread that waits is ended."""
        self.over = True
        for thread in self.threads:
            thread.finish()


class Thread:
    def __init__(self, steps, name, target):
        self.name, self.ticket = name, 0
        self._steps, self._target = steps, target
        self._turn = threading.Semaphore(0)
        self._real = threading.Thread(target=self._run, name=name, daemon=True)
        self._started = False

    @property
    def ident(self):
        return self._real.ident

    @property
    def alive(self):
        return self._real.is_alive()

    def start(self):
        self._steps.loop.call_soon(self.wake, self.ticket)

    def wake(self, ticket):
        """On the loop: the thread goes on until it waits again, or ends."""
        if ticket != self.ticket or self._steps.over:
            return
        self.ticket += 1
        self._steps.current = self
        if self._started:
            self._turn.release()
        else:
            self._started = True
            self._real.start()
        self._steps.back.acquire()
        self._steps.current = None

    def park(self):
        """In the thread: wait to be woken with the ticket of now."""
        if self._steps.over:
            raise Over
        self._steps.back.release()
        self._turn.acquire()
        if self._steps.over:
            raise Over

    def finish(self):
        if self._started and self._real.is_alive():
            self._turn.release()
            self._real.join(10)
            assert not self._real.is_alive(), f"the thread {self.name} does not end"

    def _run(self):
        try:
            self._target()
        except Over:
            pass
        except BaseException as error:  # noqa: BLE001 told, or the simulation would not see it
            self._steps.failed(error)
        self._steps.back.release()


class Queue:
    """As queue.Queue, for one thread that takes from it."""

    def __init__(self, steps, size):
        self._steps, self._size = steps, size
        self._items, self._waiting = deque(), None

    def put_nowait(self, item):
        if self._size and len(self._items) >= self._size:
            raise queue.Full
        self._items.append(item)
        if self._waiting is not None:
            thread, ticket = self._waiting
            self._waiting = None
            self._steps.loop.call_soon(thread.wake, ticket)

    def get(self):
        thread = self._steps.current
        while not self._items:
            if thread is None:
                raise Over
            self._waiting = thread, thread.ticket
            thread.park()
        return self._items.popleft()
