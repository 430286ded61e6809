"""What memory each model of a plan gets: on which GPUs, whole or cut, and what it then holds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.engine import arguments
from app.engine.arguments import Resolved, Wanted
from app.engine.capabilities import Capabilities
from app.form.settings import ModelSettings
from app.models.gguf import Header
from app.models.hub import Located as OnHub
from app.models.reference import Reference, Tiny
from app.models.store import Located, ModelFiles, Preview
from app.planning import footprint, placement
from app.planning.amounts import HOST, Need, at_once, lacking, together
from app.planning.budget import need
from app.planning.footprint import Footprint, Machine
from app.planning.settle import TINY_NAME


@dataclass(frozen=True)
class Files:
    """Where a model's files are, and what is known of them already."""

    model: Located
    mmproj: Located | None
    preview: ModelFiles | Preview | None

    @property
    def header(self) -> Header | None:
        return self.preview.header if self.preview is not None else None

    @property
    def size(self) -> int:
        """Bytes, as far as they are known."""
        return sum(located.size for located in self._sized())

    @property
    def downloads(self) -> dict[str, int]:
        """Bytes of each file that is still to come, as far as they are known; a file that several
        models use has the same name in each of them."""
        return {name: size for each in self._sized() for name, size in each.downloads.items()}

    @property
    def missing(self) -> int:
        """Bytes that are still to come, as far as they are known."""
        return sum(self.downloads.values())

    def _sized(self) -> list[OnHub | ModelFiles]:
        both = (self.model, self.mmproj)
        return [located for located in both if isinstance(located, OnHub | ModelFiles)]


@dataclass(frozen=True)
class Planned:
    """One model: its settings with name and reference settled, and where its files are.

    `resolved` and `footprint` are None for a model that nothing is known of before it is here.
    """

    settings: ModelSettings
    reference: Reference
    files: Files
    wanted: Wanted
    resolved: Resolved | None = None
    footprint: Footprint | None = None

    @property
    def name(self) -> str:
        return self.settings.endpoint_name

    @property
    def label(self) -> str:
        return TINY_NAME if isinstance(self.reference, Tiny) else self.settings.model


async def settle_memory(
    planned: Planned,
    files: ModelFiles | Preview,
    known: Capabilities,
    machine: Machine,
    room: Room,
) -> Planned:
    """With what its files say of the memory that it gets: on the single GPU with most room that it
    fits on as a whole, else over all; beside the models before, where that can be. Cut only where
    it fits nowhere. Raises ConfigError."""
    given = planned.wanted.placement
    best: tuple[tuple[str, ...], Resolved, Footprint] | None = None
    for chosen in placement.candidates(known.devices, given, room.budget, room.assigned):
        wanted = replace(planned.wanted, placement=(*given, *chosen))
        resolved = footprint.whole(wanted, files.header, known, machine)
        resolved, needs = await _spread(planned, wanted, resolved, files, (known, machine, room))
        fits = machine.holds(needs)
        if fits and (best is None or room.takes(needs)):
            best = chosen, resolved, needs
        if fits and room.takes(needs):
            break
    if best is None:  # the last one tried was all GPUs
        resolved, needs = await _cut(planned, wanted, files, (known, machine, room))
        best = chosen, resolved, needs
    chosen, resolved, needs = best
    resolved = replace(resolved, placement=(*chosen, *resolved.placement))
    room.take(needs)
    return replace(planned, resolved=resolved, footprint=needs)


def running(planned: Sequence[Planned], budget: Need) -> int:
    """How many of them can be in memory at the same time; nothing speaks against one that nothing
    is known of yet."""
    needs = [need(each.footprint) for each in planned if each.footprint is not None]
    return max(1, at_once(needs, budget) + len(planned) - len(needs))


def with_threads(planned: Planned, machine: Machine) -> Planned:
    """With its part of the CPU threads, once it is known how many models run at the same time."""
    if planned.resolved is None:
        return planned
    threads, batch = machine.threads_for(planned.wanted)
    resolved = replace(planned.resolved, threads=threads, threads_batch=batch)
    return replace(planned, resolved=resolved)


async def _cut(
    planned: Planned,
    wanted: Wanted,
    files: ModelFiles | Preview,
    where: tuple[Capabilities, Machine, Room],
) -> tuple[Resolved, Footprint]:
    """What the planning tool makes of it. It counts a little otherwise than we start it, and looks
    at what is free now: where it took too much it is asked for so much less, once."""
    known, machine, room = where
    resolved = await footprint.cut(wanted, files, known, machine)
    found = await _spread(planned, wanted, resolved, files, where)
    over = {d: size - machine.headroom.get(d, 0) for d, size in found[1].devices.items()}
    if not any(size > 0 for size in over.values()):
        return found
    less = {d: size - max(0, over.get(d, 0)) for d, size in machine.headroom.items()}
    machine = replace(machine, headroom=less)
    resolved = await footprint.cut(wanted, files, known, machine)
    return await _spread(planned, wanted, resolved, files, where)


async def _spread(
    planned: Planned,
    wanted: Wanted,
    resolved: Resolved,
    files: ModelFiles | Preview,
    where: tuple[Capabilities, Machine, Room],
) -> tuple[Resolved, Footprint]:
    """With the proportion in which several GPUs take it: by what the models before leave, where it
    fits so, else by all that they have; and what it needs then."""
    known, machine, room = where
    for shares in (room.left, room.budget):
        placed = (*wanted.placement, *resolved.placement)
        split = placement.split(known.devices, placed, shares)
        found = replace(resolved, placement=(*resolved.placement, *split))
        argv = arguments.planning(planned.settings, found, wanted)
        divided = wanted.slots(known) > 1
        needs = await footprint.predict(argv, files, known, machine, divided=divided)
        if planned.files.mmproj is not None:
            needs = needs.plus(projector_size(planned.files.mmproj))
        if wanted.cache_ram is None:  # of its own accord it is in nobody's way
            found = found.with_cache_within(_left_of_host(needs, room))
        needs = replace(needs, cache=found.prompt_cache(known))
        if not split or room.takes(needs):
            break
    return found, needs


def _left_of_host(needs: Footprint, room: Room) -> int:
    """Bytes of host memory that stay free beside a model, and those before it if it fits so."""
    size = need(needs)[HOST]
    beside = room.left.get(HOST, 0) - size
    return max(0, beside if beside >= 0 else room.budget.get(HOST, 0) - size)


@dataclass
class Room:
    """Bytes by device: what there is, and what the models before take."""

    budget: dict[str, int]
    assigned: dict[str, int]

    @property
    def left(self) -> dict[str, int]:
        return {d: max(0, size - self.assigned.get(d, 0)) for d, size in self.budget.items()}

    def takes(self, needs: Footprint) -> bool:
        return not lacking(together([need(needs), self.assigned]), self.budget)

    def take(self, needs: Footprint) -> None:
        self.assigned = dict(together([need(needs), self.assigned]))


def projector_size(located: Located) -> int:
    """Bytes; 0 where there is no knowing yet."""
    return located.size if isinstance(located, OnHub | ModelFiles) else 0
