"""The network: connections in memory, with a delay, and with back-pressure as of a socket."""

import asyncio
import errno
import os
from collections import deque

KERNEL = 128 << 10  # bytes that are under way before a sender notices that nobody reads
HIGH, LOW = 64 << 10, 16 << 10  # bytes that wait beyond that, as of asyncio's transports
READ = 256 << 10  # bytes that one read brings at most
EOF = object()


class Network:
    """Who listens where, and every connection that is open."""

    def __init__(self, loop):
        self.loop = loop
        self.listeners, self.since = {}, {}  # who listens where, and since when
        self.open = {}  # an ordered set
        self._ports = iter(range(40_000, 65_536))

    async def listen(self, factory, host, port, tls=None):
        place = port or next(self._ports)
        if place in self.listeners:
            raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
        return Listener(self, factory, place, host)

    async def connect(self, factory, port, host="127.0.0.1"):
        await self.reach(factory, port, "127.0.0.1", 0.0001)

    async def connect_unix(self, factory, path):
        await self.reach(factory, path, "", 0.00005)

    def hold(self, path):
        """There are no files of sockets."""
        return None

    async def reach(self, factory, place, address, delay):
        """A connection from `address`, whose bytes take `delay` seconds."""
        await asyncio.sleep(delay)
        listener = self.listeners.get(place)
        if listener is None:
            raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
        if listener.full:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        near, far = Transport(self, factory(), "", delay), None
        far = Transport(self, listener.factory(), address, delay)
        near.peer, far.peer = far, near
        far.protocol.connection_made(far)
        near.protocol.connection_made(near)
        return near


class Listener:
    """What asyncio's create_server returns, as far as it is used."""

    def __init__(self, network, factory, place, host=""):
        self.factory, self.full = factory, False
        self._network, self._place, self._host = network, place, host
        self.sockets = (self,)
        network.listeners[place] = self
        network.since.setdefault(place, network.loop.time())

    def getsockname(self):
        return self._host, self._place

    def close(self):
        if self._network.listeners.get(self._place) is self:
            del self._network.listeners[self._place]


class Transport(asyncio.Transport):
    """One end of a connection."""

    def __init__(self, network, protocol, address, delay):
        super().__init__()
        self.protocol, self.peer = protocol, None
        self._network, self._loop, self._delay = network, network.loop, delay
        self._address = address
        self._under_way = deque()  # when something arrives at the peer, and what
        self._timer = None
        self._inbox = deque()
        self._unread = 0  # bytes that were written here and that the peer has not read
        self._writing_paused = False
        self._reading = True
        self._closing = self._lost = self._ended = False
        network.open[self] = None

    def get_extra_info(self, name, default=None):
        return (self._address, 1) if name == "peername" and self._address else default

    def get_protocol(self):
        return self.protocol

    def is_closing(self):
        return self._closing

    def get_write_buffer_size(self):
        return max(0, self._unread - KERNEL)

    # Writing.

    def write(self, data):
        if self._closing or self._ended or not data:
            return
        self._unread += len(data)
        self._send(bytes(data))
        if not self._writing_paused and self.get_write_buffer_size() > HIGH:
            self._writing_paused = True
            self.protocol.pause_writing()

    def writelines(self, pieces):
        self.write(b"".join(pieces))

    def can_write_eof(self):
        return True

    def write_eof(self):
        if not self._ended:
            self._ended = True
            self._send(EOF)

    def _send(self, item):
        self._under_way.append((self._loop.time() + self._delay, item))
        if self._timer is None:
            self._timer = self._loop.call_later(self._delay, self._arrive)

    def _arrive(self):
        now = self._loop.time() + 1e-9
        while self._under_way and self._under_way[0][0] <= now:
            self.peer.receive(self._under_way.popleft()[1])
        self._timer = None
        if self._under_way:
            wait = self._under_way[0][0] - self._loop.time()
            self._timer = self._loop.call_later(wait, self._arrive)

    def _taken(self, size):
        """The peer has read so many bytes."""
        self._unread -= size
        if self._writing_paused and self.get_write_buffer_size() <= LOW:
            self._writing_paused = False
            if not self._closing:
                self.protocol.resume_writing()
        if self._closing and not self._lost and not self.get_write_buffer_size():
            self._lose(None)

    # Reading.

    def receive(self, item):
        if self._closing:
            if item is not EOF:
                self.peer.reset()
            return
        self._inbox.append(item)
        self._drain()

    def _drain(self):
        while self._inbox and self._reading and not self._closing:
            if self._inbox[0] is EOF:
                self._inbox.popleft()
                if not self.protocol.eof_received():
                    self.close()
                return
            pieces, size = [], 0
            while self._inbox and self._inbox[0] is not EOF and size < READ:
                pieces.append(self._inbox.popleft())
                size += len(pieces[-1])
            self.peer._taken(size)
            self.protocol.data_received(b"".join(pieces))

    def pause_reading(self):
        self._reading = False

    def resume_reading(self):
        self._reading = True
        self._loop.call_soon(self._drain)

    def is_reading(self):
        return self._reading

    # The end.

    def close(self):
        if self._closing:
            return
        self._closing = True
        self.write_eof()
        if not self.get_write_buffer_size():
            self._lose(None)

    def abort(self):
        """As asyncio's: what the kernel has is still sent."""
        unsent = self._inbox and not self._lost
        self._closing = True
        self._drop_unsent()
        if unsent:
            self._under_way.clear()
            self._loop.call_later(self._delay, self.peer.reset)
        self.write_eof()
        self._lose(None)

    def _drop_unsent(self):
        over = self.get_write_buffer_size()
        while over > 0 and self._under_way and self._under_way[-1][1] is not EOF:
            over -= len(self._under_way.pop()[1])

    def reset(self):
        """The peer has broken the connection, or is gone."""
        self._closing = True
        self._lose(ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET)))

    def _lose(self, error):
        if not self._lost:
            self._lost = True
            self._network.open.pop(self, None)
            self._inbox.clear()
            self._loop.call_soon(self.protocol.connection_lost, error)
