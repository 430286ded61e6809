"""TLS of the front: the certificate, read again when its files change."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
import ssl
import stat
from collections.abc import Sequence
from pathlib import Path

from app.errors import ConfigError

logger = logging.getLogger(__name__)

LOOK = 10.0  # seconds between two looks at the files
PROTOCOLS = ["http/1.1"]
CERTIFICATE = b"CERTIFICATE-----"
KEY = b"PRIVATE KEY-----"
OTHERS_KEY = ("KEY_VALUES_MISMATCH", "KEY_TYPE_MISMATCH", "NO_CERTIFICATE_ASSIGNED")
ENCRYPTED = re.compile(rb"BEGIN ENCRYPTED PRIVATE KEY|Proc-Type: 4,ENCRYPTED")
LONGEST = 1 << 20  # bytes of a file in which we look for what is wrong


class Certificate:
    """The context of a listener, with the chain of `certificate` and its `key`, both PEM files."""

    def __init__(self, certificate: str, key: str) -> None:
        """Raises ConfigError where they cannot be read, or do not belong together."""
        self._files = (certificate, key)
        self.context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self.context.set_alpn_protocols(PROTOCOLS)
        # A handshake costs us more than the client, who may ask for it again and again.
        self.context.options |= ssl.OP_NO_RENEGOTIATION
        self._seen = self._stamps()
        try:
            self._are_files()
            self._load()
        except (OSError, ValueError) as error:  # SSLError is an OSError
            problem = (
                f"--tls-cert {certificate}, --tls-key {key}: cannot be used: {self._why(error)}"
            )
            raise ConfigError(problem) from None

    async def follow(self) -> None:
        """New connections get the new certificate, once both files fit together."""
        while True:
            await asyncio.sleep(LOOK)
            self.look()

    def look(self) -> None:
        stamps = self._stamps()
        if stamps == self._seen:
            return
        self._seen = stamps
        try:
            self._are_files()
            self._check()
            self._load()
        except (OSError, ValueError) as error:
            logger.warning(
                "--tls-cert: the new certificate cannot be used yet: %s", self._why(error)
            )
        else:
            logger.info("--tls-cert: the new certificate is used")

    def _are_files(self) -> None:
        for name in self._files:
            if not stat.S_ISREG(os.stat(name).st_mode):
                raise ValueError(f"{name} is not a file")  # OpenSSL would wait for a pipe

    def _why(self, error: OSError | ValueError) -> str:
        if getattr(error, "reason", "") in OTHERS_KEY:
            return "the key is not that of the certificate"
        if isinstance(error, ssl.SSLError):
            return self._misfit() or f"{error}: is one of them cut off, or not of this kind?"
        if isinstance(error, OSError) and error.filename:
            return f"{error.filename}: {error.strerror}"
        return str(error)

    def _misfit(self) -> str:
        """What is wrong with a file that OpenSSL cannot read: of most, it says "PEM lib"."""
        certificate, key = self._files
        with contextlib.suppress(OSError):
            if CERTIFICATE not in _start(certificate):
                return f"{certificate} holds no certificate in PEM"
            if KEY not in (found := _start(key)):
                return f"{key} holds no private key in PEM"
            if ENCRYPTED.search(found):
                return f"{key} is encrypted: take the passphrase off (openssl pkey)"
        return ""

    def _check(self) -> None:
        """Apart: a failed load would leave half of the new pair in the context."""
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
            *self._files, password=""
        )

    def _load(self) -> None:
        self.context.load_cert_chain(*self._files, password="")  # else it would ask the terminal

    def _stamps(self) -> Sequence[tuple[int, int, int]]:
        found = []
        for name in self._files:
            with contextlib.suppress(OSError):
                stat = os.stat(name)
                found.append((stat.st_ino, stat.st_size, stat.st_mtime_ns))
        return found


def _start(name: str) -> bytes:
    with Path(name).open("rb") as file:
        return file.read(LONGEST)
