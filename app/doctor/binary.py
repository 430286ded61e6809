"""llama-server: where it is, how old, what it knows, and whether it uses the GPUs."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from app.doctor import releases
from app.doctor.finding import Finding, not_checked, ok, problem, warning
from app.engine import capabilities
from app.engine.capabilities import Capabilities
from app.errors import ConfigError
from app.machine import gpu, threads
from app.machine.children import die_with_us

UPDATE = "install a newer one (`make install`, or a newer container image)"
NONE_RUNS = "no llama-server that runs"
NEEDED = (
    "--model",
    "--ctx-size",
    "--host",
    "--port",
    "--alias",
    "--parallel",
    "--metrics",
    "--slots",
)
HELPFUL = {  # and what is lost without it
    "--kv-unified": "callers of one model cannot share its context",
    "--slot-save-path": "a model that goes to disk loses its KV cache",
    "--fit": "context and layers cannot be held to what was planned",
    "--log-jsonl": "its log is read as text, and memory is estimated",
    "--list-devices": "its GPUs are not known",
}


class LlamaServer:
    """The one that would be started; it is looked at once for all checks."""

    def __init__(
        self, given: str, environment: Mapping[str, str], child: Mapping[str, str]
    ) -> None:
        """`given` by the form; `child` is the environment that it is started with."""
        self._given = given
        self._environment = environment
        self._child = child
        self._looking: asyncio.Task[Capabilities] | None = None

    async def _known(self) -> Capabilities:
        """Raises ConfigError."""
        if self._looking is None:
            self._looking = asyncio.ensure_future(self._look())
        return await asyncio.shield(self._looking)

    async def _look(self) -> Capabilities:
        path = capabilities.find(self._given, self._environment)
        return await capabilities.probe(path, self._child)

    async def version(self) -> Finding:
        found = await self._known()
        version = releases.version_of(await capabilities.version(found.path, self._child))
        seen = f"{found.path}, {version.text}, {releases.age(version)}"
        if not version.faults:
            return ok(seen)
        known = "; ".join(f"{fault.what} (before b{fault.fixed})" for fault in version.faults)
        return warning(f"{seen}; known faults: {known}", UPDATE)

    async def gpus(self) -> Finding:
        try:
            found = await self._known()
        except ConfigError:
            return not_checked(NONE_RUNS)
        visible = [device.name for device in await threads.run(gpu.devices)]
        capabilities.check_gpus(visible, found.devices, None)  # raises for the worst
        used = ", ".join(found.devices)
        if not visible:
            return ok(f"it lists {used}" if used else "it lists none, and there are none")
        if len(visible) != len(found.devices):
            seen = f"it lists {used}, and the driver shows {len(visible)} GPUs"
            return warning(seen, "check CUDA_VISIBLE_DEVICES, and for which GPUs it was built")
        return ok(f"it uses {used}")

    async def flags(self) -> Finding:
        try:
            found = await self._known()
        except ConfigError:
            return not_checked(NONE_RUNS)
        missing = [flag for flag in NEEDED if not found.knows(flag)]
        if missing:
            return problem(f"it does not know {', '.join(missing)}", UPDATE)
        lost = [f"no {flag}: {what}" for flag, what in HELPFUL.items() if not found.knows(flag)]
        if found.devices and found.fit_params is None:
            lost.append("no llama-fit-params beside it: what fits is computed roughly")
        if lost:
            return warning("; ".join(lost), UPDATE)
        return ok(f"it knows all {len(NEEDED) + len(HELPFUL)} that the app relies on")


async def ends_with_us() -> Finding:
    if die_with_us():
        return ok("setpriv: llama-server ends with us, however we end")
    return warning("no setpriv: killed, we might leave llama-server behind", "install util-linux")
