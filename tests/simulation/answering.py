"""What a simulated llama-server answers: its own pages, and requests that compute."""

import asyncio
import json
from pathlib import Path

import httptools

SHORT = 64  # words: an answer of so many may wait inside for a slot
EMBEDDINGS = "embeddings"
LAST = 0.05  # how likely an answer is the last one on its connection
IDLE = 5.0  # seconds, after which a connection is closed
SILENCE = 1.0  # seconds without a result for anybody, until it checks whether clients have left
TEMPLATE = "<|im_start|>user\n{}<|im_end|>\n<|im_start|>assistant\n"


class Served(asyncio.Protocol):
    """One connection to it."""

    def __init__(self, server):
        self.server = server
        self.transport = None
        self.closed, self._last, self._idle = False, False, None
        self._begin()

    def _begin(self):
        self._parser = httptools.HttpRequestParser(self)
        self._body, self._headers = [], {}

    def connection_made(self, transport):
        self.transport = transport
        self.server.connections[self] = None

    def connection_lost(self, error):
        self.closed = True
        if self._idle is not None:
            self._idle.cancel()
        self.server.connections.pop(self, None)

    def eof_received(self):
        return False

    def pause_writing(self): ...

    def resume_writing(self): ...

    def data_received(self, data):
        if self._idle is not None:
            self._idle.cancel()
        self._parser.feed_data(data)

    def on_url(self, url):
        self._url = url.decode()

    def on_header(self, name, value):
        self._headers[name.lower()] = value

    def on_body(self, body):
        self._body.append(body)

    def on_message_complete(self):
        method, url, body = self._parser.get_method().decode(), self._url, b"".join(self._body)
        headers = self._headers
        self._begin()
        self.server.run(self._answer(method, url, headers, body))

    async def _answer(self, method, url, headers, body):
        server, path = self.server, url.partition("?")[0]
        await server.awake(0.0002)
        if path.startswith("/slots"):
            server.results()
        told = {
            "/v1/models": {"data": [{"id": server.alias, "meta": {"n_ctx_train": 4096}}]},
            "/slots": [slot.told() for slot in server.slots],
        }
        if path == "/health":
            self.tell(*((200, {"status": "ok"}) if server.ready else (503, {})))
        elif headers.get(b"authorization") != f"Bearer {server.key}".encode():
            self.fail(401, "Invalid API Key")
        elif not server.ready:
            self.fail(503, "Loading model")
        elif path in told:
            self.tell(200, told[path])
        elif path.startswith("/slots/"):
            await server.working(0.05)
            self._move(int(path.split("/")[2]), url, json.loads(body))
        else:
            await self._compute(path, body)

    def _move(self, number, url, body):
        """A slot's KV cache goes into a file, or comes from it."""
        slot, file = self.server.slots[number], Path(self.server.folder) / body["filename"]
        if "restore" in url:
            slot.prompt = int(file.read_text())
            self.tell(200, {"n_restored": slot.prompt})
        elif self.server.world.machine.disk < (1 << 30):
            self.fail(500, "No space left on device")
        else:
            tokens = slot.prompt + slot.decoded
            file.write_text(str(tokens))
            self.tell(200, {"n_saved": tokens})

    async def _compute(self, path, body):
        try:
            given = json.loads(body)
            text = words_of(given)
        except (ValueError, KeyError, TypeError, AttributeError):
            return self.fail(400, "'messages' is required")
        if path == "/apply-template":
            return self.tell(200, {"prompt": TEMPLATE.format(text) + str(given.get("tools", ""))})
        if path == "/tokenize":
            return self.tell(200, {"tokens": [1] * tokens_of(text)})
        if path.endswith("/input_tokens"):
            await self.server.working(0.01)
            return self.tell(200, {"input_tokens": tokens_of(text) + 10})
        if EMBEDDINGS in path and not self.server.embeds:
            return self.fail(501, "This server does not support embeddings")
        job = Job(self, path, given, text)
        server = self.server
        server.world.trace(f"{server.child.name} gets {job.name}: {job.prompt} + {job.most} tokens")
        if job.prompt >= server.context:
            return self.fail(400, "the request exceeds the available context size")
        server.world.began(job.name, server)
        server.waiting.append(job)
        server.start_next()
        if job in server.waiting and job.most > SHORT and EMBEDDINGS not in job.path:
            server.world.violated(f"{server.child.name} has no slot for {job.name}")

    def fail(self, status, message):
        self.tell(status, {"error": {"code": status, "message": message, "type": "server_error"}})

    def tell(self, status, body):
        told = json.dumps(body).encode()
        kind = b"application/json; charset=utf-8\r\ncontent-length: %d" % len(told)
        self.send(self.head(status, kind) + told)
        self.over()

    def head(self, status, kind):
        """Now and then an answer is the last one on its connection."""
        self._last = self.server.world.draw("connections").random() < LAST
        close = b"connection: close\r\n" if self._last else b""
        return b"HTTP/1.1 %d X\r\n%bcontent-type: %b\r\n\r\n" % (status, close, kind)

    def over(self):
        """The answer is told."""
        if self._last:
            self.transport.close()
        else:
            self._idle = self.server.world.loop.call_later(IDLE, self.transport.close)

    def send(self, data):
        if not self.closed:
            self.transport.write(data)


def words_of(given):
    """The prompt: all texts of a body."""
    if "messages" in given:
        return "\n".join(message["content"] for message in given["messages"])
    found = given["content"] if "content" in given else given.get("prompt", given.get("input"))
    return "\n".join(found) if isinstance(found, list) else found + ""


def tokens_of(text):
    return len(text) // 4 + 1


class Job:
    """One request that computes. Its prompt begins with `name length`: what it is called, and how
    many words its answer has if nobody cuts it."""

    def __init__(self, wire, path, given, text):
        self.wire, self.server, self.path, self.given = wire, wire.server, path, given
        self.name, length = text.split()[:2]
        self.prompt = tokens_of(text) + 10
        self.mark = given.get("n_discard", 0)
        limits = [given[key] for key in ("n_predict",) if given.get(key, -1) >= 0]
        limits = limits or [given[key] for key in ("max_tokens",) if given.get(key, -1) >= 0]
        self.length = int(length)
        self.most = min([self.length, *limits, self.server.context - self.prompt])
        self.streams = bool(given.get("stream"))
        self.slot = None
        self.left_at = None

    @property
    def gone(self):
        """Whether it has noticed that the client has left: it has a part of a stream to send, or
        has had no result for anybody for a while."""
        if not self.wire.closed:
            return False
        now = self.server.world.loop.time()
        self.left_at = self.left_at or now
        return self.streams or now - max(self.left_at, self.server.told_at) > SILENCE

    async def work(self):
        server, slot, manners = self.server, self.slot, self.server.manners
        slot.prompt = self.prompt
        server.check_buffer()
        await server.working(self.prompt / manners.prompt_rate)
        if EMBEDDINGS in self.path:
            return self.wire.tell(200, self._embedding())
        breaks = server.world.draw("break").random() < manners.breaks
        for number in range(self.most):
            await server.working(manners.token * server.world.jitter())
            if self.gone:
                return server.world.trace(f"{server.child.name} gives {self.name} up")
            slot.decoded = number + 1
            server.check_buffer()
            if self.streams:
                self.server.results()
                self._send_word(number)
            if breaks and number >= self.most // 2:
                server.world.trace(f"{server.child.name} breaks {self.name} off")
                server.world.touched(self.name)
                return self.wire.transport.abort()
        server.results()
        if self.streams:
            self._send_last()
        else:
            words = "".join(map(self._word, range(self.most)))
            self.wire.tell(200, self._whole(words))

    def _word(self, number):
        return f"{self.server.alias}/{self.name}/{number} "

    def _usage(self):
        used = {"prompt_tokens": self.prompt, "completion_tokens": self.most}
        return {**used, "total_tokens": self.prompt + self.most}

    def _embedding(self):
        data = [{"embedding": [0.5], "index": 0, "object": "embedding"}]
        return {"model": self.server.alias, "data": data, "usage": {"prompt_tokens": self.prompt}}

    @property
    def _reason(self):
        return "stop" if self.most == self.length else "length"

    def _whole(self, words):
        message = {"role": "assistant", "content": words}
        choice = {"index": 0, "message": message, "finish_reason": self._reason}
        return {"model": self.server.alias, "choices": [choice], "usage": self._usage()}

    def _send_word(self, number):
        head = b""
        if number == 0:
            kind = b"text/event-stream\r\ntransfer-encoding: chunked"
            head = self.wire.head(200, kind)
        choice = {"index": 0, "delta": {"content": self._word(number)}, "finish_reason": None}
        self.wire.send(head + chunk(self._event([choice])))

    def _event(self, choices, **more):
        event = {"choices": choices, "object": "chat.completion.chunk", "created": 1, **more}
        return {**event, "id": self.name, "model": self.server.alias}

    def _send_last(self):
        last = {"index": 0, "delta": {}, "finish_reason": self._reason}
        used = self._event([last], usage=self._usage())
        self.wire.send(chunk(used) + data(b"[DONE]") + b"0\r\n\r\n")
        self.wire.over()


def data(told):
    event = b"data: %b\n\n" % told
    return b"%x\r\n%b\r\n" % (len(event), event)


def chunk(event):
    return data(json.dumps(event).encode())
