"""The llama-server of this machine: where it is, and what it says of itself."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import shutil
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from app.engine.flags import Binary
from app.errors import ConfigError
from app.machine import children, home, threads

logger = logging.getLogger(__name__)

CONTAINER = Path("/app/llama-server")
IMAGE_VARIABLE = "CLEARML_DOCKER_IMAGE"  # set by an agent in docker mode
BUILD_IMAGE = (
    "If the container's set-up could not install it (see the log above), build an image that has "
    "it, `docker build -f templates/Dockerfile -t NAME .`, and set General/container_image to NAME"
)
OPTIONS = re.compile(r"^(-{1,2}\w[\w-]*(?:,\s+-{1,2}\w[\w-]*)*)(?:\s|$)")
REMOVED = re.compile(r"the argument has been removed.*?(?=\s*\(env:|$)")
TIMEOUT = 60.0  # seconds; with CUDA, --list-devices initialises every GPU
TOLD = 5.0  # seconds, after which one who watches the console knows for what we wait


@dataclass(frozen=True)
class Capabilities(Binary):
    """A binary that runs here. `device_memory` are the bytes of each GPU that it would use, by its
    name for the GPU; `device_free` are those that were free when it was asked."""

    path: Path
    device_memory: Mapping[str, int] = field(default_factory=dict)
    device_free: Mapping[str, int] = field(default_factory=dict)
    unix_sockets: bool = True

    @property
    def devices(self) -> tuple[str, ...]:
        return tuple(self.device_memory)

    @property
    def fit_params(self) -> Path | None:
        """The planning tool that is built beside llama-server, if there is one."""
        tool = self.path.with_name("llama-fit-params")
        return tool if os.access(tool, os.X_OK) else None


def find(given: str, environment: Mapping[str, str]) -> Path:
    """The llama-server to run. Raises ConfigError that names what was looked at."""
    for source, path in (
        ("General/llama_server", given),
        ("LLAMA_SERVER", environment.get("LLAMA_SERVER", "")),
    ):
        if path:
            expanded = home.expand(path, source)
            if not os.access(expanded, os.X_OK) or expanded.is_dir():
                raise ConfigError(f"{source}: {path} is no program")
            return expanded.absolute()
    built = Path(sysconfig.get_path("purelib")) / "bin" / "llama-server"
    for candidate in (shutil.which("llama-server"), CONTAINER, built):
        if candidate and os.access(candidate, os.X_OK):
            return Path(candidate).absolute()
    image = environment.get(IMAGE_VARIABLE, "")
    where = f" in the container image {image}" if image else ""
    raise ConfigError(
        f"no llama-server{where}: not in General/llama_server, LLAMA_SERVER, the PATH, {CONTAINER} "
        f"or {built}. {BUILD_IMAGE if image else '`make install` builds one'}"
    )


async def probe(path: Path, environment: Mapping[str, str]) -> Capabilities:
    """Ask the binary. Raises ConfigError where it does not run."""
    text = await _ask(path, environment, "--help")
    flags, removed = parse_help(text)
    if not {"--model", "--ctx-size"} <= flags.keys():
        raise ConfigError(f"{path} is no llama-server: its --help knows no --model")
    # Only then: it tells how much memory of the GPUs is free, and --help may hold some of it.
    listed = await _ask(path, environment, "--list-devices") if "--list-devices" in flags else ""
    devices = parse_devices(listed)
    totals = {name: total for name, (total, _) in devices.items()}
    free = {name: free for name, (_, free) in devices.items() if free is not None}
    unix = "unix socket" in text.lower()
    return Capabilities(flags, path, totals, free, unix, removed=removed)


async def version(path: Path, environment: Mapping[str, str]) -> str:
    """What the binary says of its version. Raises ConfigError."""
    return await _ask(path, environment, "--version")


def parse_help(text: str) -> tuple[dict[str, tuple[str, ...]], dict[str, str]]:
    """Every flag with all its spellings; and the flags that it refuses, with its advice."""
    flags: dict[str, tuple[str, ...]] = {}
    removed: dict[str, str] = {}
    for head, about in _options(text.splitlines()):
        names = tuple(re.split(r",\s+", head))
        advice = REMOVED.search(about)
        if advice is None:
            flags.update(dict.fromkeys(names, names))
        else:
            removed.update(dict.fromkeys(names, " ".join(advice[0].split())))
    return flags, removed


def _options(lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Spellings and description of each option; a description continues on indented lines."""
    option, about = "", ""
    for line in lines:
        head = OPTIONS.match(line)
        if option and (head or not line.startswith(" ")):
            yield option, about
            option = ""
        if head:
            option, about = head[1], line[head.end(1) :]
        else:
            about += line
    if option:
        yield option, about


def parse_devices(text: str) -> dict[str, tuple[int, int | None]]:
    """Bytes of each GPU, and how many of them are free, from the lines after "Available devices:",
    such as `  CUDA0: NVIDIA H200 (143771 MiB, 140000 MiB free)`; 0 and None where they do not say
    it. A GPU's name may have parentheses of its own."""
    _, _, listed = text.partition("Available devices:")
    sizes = r"(?:\((\d+) MiB(?:, (\d+) MiB free)?\))?"
    rows = re.findall(rf"^\s+(\w+): .*?{sizes}\s*$", listed, re.M)
    return {
        name: (int(total or 0) << 20, int(free) << 20 if free else None)
        for name, total, free in rows
    }


def check_gpus(visible: Sequence[str], used: Sequence[str], wanted_layers: int | None) -> None:
    """Raises ConfigError for a llama-server without GPU support on a machine with GPUs, unless no
    layer is wanted on a GPU."""
    if visible and not used and wanted_layers != 0:
        raise ConfigError(
            f"this machine has {', '.join(visible)}, but llama-server was built without GPU "
            "support and would run on the CPU: use one built with CUDA (General/llama_server), "
            "or set Model/gpu_layers to 0"
        )


async def _ask(path: Path, environment: Mapping[str, str], flag: str) -> str:
    loop = asyncio.get_running_loop()
    telling = loop.call_later(TOLD, logger.info, "%s has not answered %s yet", path, flag)
    try:
        done = await threads.run(children.run, [str(path), flag], environment, TIMEOUT)
    except OSError as error:
        raise ConfigError(f"{path} cannot be run: {error.strerror}") from None
    except children.TimeoutExpired:
        raise ConfigError(f"{path} {flag} did not answer in {TIMEOUT:.0f} s") from None
    finally:
        telling.cancel()
    text = done.output + done.errors
    if done.status:
        how = f"signal {-done.status}" if done.status < 0 else str(done.status)
        last = "".join(f": {line}" for line in text.strip().splitlines()[-1:])
        raise ConfigError(f"{path} {flag} ended with {how}{last}")
    return text
