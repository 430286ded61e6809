"""Callers of many kinds, drawn from a seed: each looks closely at its answers."""

import asyncio
import io
import json
import time
from contextlib import asynccontextmanager

import aiohttp

from tests.chaos.models import PROMPT, said_by, words

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
ERRORS = ("429", "502", "503", "504")  # what may befall a request that is right
# kind → how often, of a mixed crowd
MIXED = {"stream": 8, "short": 8, "leaves": 3, "refused": 2, "page": 2, "embeds": 2}
STREAMS = {"stream": 12, "short": 2, "leaves": 3, "refused": 1}
PAGES = ("/", "/health", "/ready", "/v1/models", "/api/status", "/api/history", "/metrics")
WRONG = {  # what is wrong → the statuses that may answer
    "no JSON": ("400",),
    "no such model": ("404", "400"),
    "no such path": ("404",),
    "no wait": ("400",),
    "too large": ("413", "400"),  # for a model of embeddings it is not
}


class Callers:
    """`models` are the names, `embedding` those for embeddings; `bound`: seconds until every
    request must have ended; `pause`: mean seconds between two of one caller; `tokens`: most of an
    answer.
    `excused` says whether a connection may be lost now, by what has happened since a time, and by
    whether its answer had begun."""

    def __init__(self, base, models, ledger, *, bound=60.0, pause=1.0, kinds=MIXED, **more):
        self.base, self.models, self.ledger = base, models, ledger
        self.bound, self.pause, self.kinds = bound, pause, kinds
        self.embedding = more.get("embedding", ())
        self.tokens = more.get("tokens", 60)
        self.headers = more.get("headers")
        self.excused = more.get("excused", lambda since, begun: False)
        self.quiet = False

    async def live(self, dice):
        """One caller, until `quiet`: a connection of its own, kept from request to request."""
        connector = aiohttp.TCPConnector(limit=1)
        more = {"connector": connector, "headers": self.headers}
        async with aiohttp.ClientSession(self.base, **more) as http:
            await asyncio.sleep(dice.uniform(0, self.pause))
            while not self.quiet:
                (kind,) = dice.choices(list(self.kinds), self.kinds.values())
                if kind != "embeds" or self.embedding:
                    await self.ask(http, kind, dice)
                await asyncio.sleep(dice.expovariate(1 / self.pause))

    async def ask(self, http, kind, dice):
        """One request to its end, in the ledger."""
        sent, self.ledger.under_way = time.monotonic(), self.ledger.under_way + 1
        model = dice.choice(self.embedding if kind == "embeds" else self.models)
        try:
            async with asyncio.timeout(self.bound):
                how = await getattr(self, f"_{kind}")(http, model, dice, sent)
        except TimeoutError:
            how = "late"
            self._problem(kind, model, f"no end in {self.bound:.0f} s")
        except (aiohttp.ClientError, ConnectionError) as error:
            unheard = isinstance(error, aiohttp.ClientConnectorError)
            how = "no connection" if unheard else "lost"
            if not self.excused(sent, isinstance(error, aiohttp.ClientPayloadError)):
                self._problem(kind, model, f"neither an answer nor an error: {error!r}")
        finally:
            self.ledger.under_way -= 1
        self.ledger.end("" if kind == "page" else model, how, kind)

    def _problem(self, kind, model, what):
        self.ledger.problems.append(f"{kind} for {model}: {what}")

    @asynccontextmanager
    async def _posted(self, http, path, body, sent, headers=None):
        async with http.post(path, json=body, headers=headers) as answer:
            self.ledger.first_byte(sent)
            yield answer

    async def _short(self, http, model, dice, sent):
        tokens = dice.randint(1, 12)
        body = {"model": model, "prompt": PROMPT, "max_tokens": tokens}
        async with self._posted(http, COMPLETIONS, body, sent) as answer:
            if answer.status != 200:
                return await self._error("short", model, answer)
            told = await answer.json()
        text = told["choices"][0]["text"]
        self._whole("short", model, text, tokens, told["model"])
        return "200"

    async def _embeds(self, http, model, dice, sent):
        body = {"model": model, "input": [PROMPT] * dice.randint(1, 3)}
        async with self._posted(http, "/v1/embeddings", body, sent) as answer:
            if answer.status != 200:
                return await self._error("embeds", model, answer)
            told = await answer.json()
        if len(told["data"]) != len(body["input"]) or told["model"] != model:
            self._problem("embeds", model, f"answered by {told['model']}: {len(told['data'])}")
        return "200"

    async def _stream(self, http, model, dice, sent, leaves=False):
        tokens = dice.randint(5, self.tokens)
        messages = [{"role": "user", "content": PROMPT * dice.choice((1, 5, 40))}]
        body = {"model": model, "messages": messages, "stream": True, "max_tokens": tokens}
        stop = dice.randint(1, tokens) if leaves else None
        said = []
        async with self._posted(http, CHAT, body, sent) as answer:
            if answer.status != 200:
                return await self._error("stream", model, answer)
            async for line in answer.content:
                if line.strip() == b"data: [DONE]":
                    self._whole("stream", model, "".join(said), tokens, model)
                    await answer.read()
                    return "200"
                if not line.startswith(b"data: "):
                    continue
                told = json.loads(line[6:])
                if "error" in told:
                    self._own("stream", model, "".join(said))
                    return self._clear("stream", model, told, 502)
                said += [c["delta"].get("content") or "" for c in told["choices"]]
                if stop is not None and len(said) > stop:
                    self._own("leaves", model, "".join(said))
                    answer.close()
                    return "left"
        if not self.excused(sent, True):
            self._problem("stream", model, "broken off without an error")
        return "lost"

    async def _leaves(self, http, model, dice, sent):
        """In mid-stream, or while it waits for its first byte."""
        if dice.random() < 0.7:
            return await self._stream(http, model, dice, sent, leaves=True)
        try:
            async with asyncio.timeout(dice.expovariate(5)):
                return await self._stream(http, model, dice, sent)
        except TimeoutError:
            return "left early"

    async def _refused(self, http, model, dice, sent):
        wrong = dice.choice(list(WRONG))
        body = {"model": model, "prompt": PROMPT, "max_tokens": 1}
        path, data, headers = COMPLETIONS, None, {"content-type": "application/json"}
        if wrong == "no JSON":
            data = b'{"model": "' + model.encode()
        elif wrong == "no such model":
            body["model"] = "nobody"
        elif wrong == "no such path":
            path = "/v1/nothing"
        elif wrong == "no wait":
            headers["x-wait-timeout"] = "-1"
        else:
            data = b" " * (3 << 20)
        data = data or json.dumps(body).encode()
        async with http.post(path, data=io.BytesIO(data), headers=headers) as answer:
            status = str(answer.status)
            if status in ERRORS:
                return await self._error("refused", model, answer)
            if status not in WRONG[wrong]:
                self._problem("refused", model, f"{wrong} is answered with {status}")
            await self._error("refused", model, answer)
        return "refused"

    async def _page(self, http, model, dice, sent):
        path = dice.choice(PAGES)
        async with http.get(path) as answer:
            await answer.read()
            good = answer.status == 200 or (path in ("/health", "/ready") and answer.status == 503)
        if not good:
            self._problem("page", path, f"answered with {answer.status}")
        return "200" if good else str(answer.status)

    async def _error(self, kind, model, answer):
        """An answer that is an error, with a clear one in its body."""
        try:
            told = json.loads(await answer.read())
        except ValueError:
            if not answer.headers.get("server", "").startswith("nginx"):
                self._problem(kind, model, f"{answer.status} without a JSON body")
            return str(answer.status)
        return self._clear(kind, model, told, answer.status)

    def _clear(self, kind, model, told, status):
        error = told.get("error")
        if not (isinstance(error, dict) and error.get("message") and error.get("type")):
            self._problem(kind, model, f"no clear error: {told!r}")
            return str(status)
        code = error.get("code")
        status = str(code if isinstance(code, int) else status)
        self.ledger.errors[status, error["message"][:100]] += 1
        if kind != "refused" and status not in ERRORS:
            self._problem(kind, model, f"{status}: {error['message']}")
        return status

    def _own(self, kind, model, text):
        if not said_by(model, text):
            self._problem(kind, model, f"words of another model: {text[:100]!r}")

    def _whole(self, kind, model, text, tokens, name):
        self._own(kind, model, text)
        if name != model:
            self._problem(kind, model, f"answered by {name}")
        if words(text) != tokens:
            self._problem(kind, model, f"{words(text)} words of {tokens}: {text[:100]!r}")
