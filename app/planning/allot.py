"""What memory each model of a plan gets: on which GPUs, whole or cut, and its footprint there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from app.engine import arguments
from app.engine.resolved import Resolved
from app.errors import FormError
from app.form.fields import MODEL
from app.models.files import Inspected
from app.models.reference import shown
from app.planning import draft, footprint, placement
from app.planning.amounts import HOST, Need, at_once, lacking, together
from app.planning.budget import need
from app.planning.candidate import Allotted, Candidate
from app.planning.footprint import Footprint
from app.planning.site import Machine, Site


@dataclass(frozen=True)
class Vacancy:
    """Bytes by device: the budget, and what of it models before this one are assigned."""

    budget: Need
    assigned: Need

    @property
    def left(self) -> Need:
        return {d: max(0, size - self.assigned.get(d, 0)) for d, size in self.budget.items()}

    def takes(self, model: Allotted) -> bool:
        """Whether the model fits beside those before it."""
        return not lacking(together([need(model.footprint), self.assigned]), self.budget)

    def left_of_host(self, taken: Footprint) -> int:
        """Bytes of host memory that stay free beside a model, and beside those before it as well
        if it fits there."""
        size = need(taken)[HOST]
        beside = self.left.get(HOST, 0) - size
        return max(0, beside if beside >= 0 else self.budget.get(HOST, 0) - size)


def vacancy(models: Sequence[Candidate], budget: Need) -> Vacancy:
    """What models leave; one whose memory is not decided yet takes nothing."""
    needs = [need(model.footprint) for model in models if isinstance(model, Allotted)]
    return Vacancy(budget, together(needs))


async def allot(candidate: Candidate, contents: Inspected, site: Site, room: Vacancy) -> Allotted:
    """Decide a model's memory by what its files say.

    A model goes whole to the single GPU with most room, else to all GPUs, and preferably where it
    fits beside the models before it. A model is cut only where it fits nowhere as a whole. Raises
    ConfigError.
    """
    _check_draft(candidate, contents)
    trial = _Trial(candidate, contents, site, room)
    devices, given = site.capabilities.devices, candidate.wanted.placement
    alone: Allotted | None = None  # the first that fits, if the models before it leave
    for chosen in placement.attempts(devices, given, room.budget, room.assigned):
        model = await trial.whole(chosen)
        fits = not site.machine.excess(model.footprint.devices)
        if fits and room.takes(model):
            return model
        if fits and alone is None:
            alone = model
    return alone or await trial.cut()


def _check_draft(candidate: Candidate, contents: Inspected) -> None:
    """Raises FormError."""
    if candidate.drafting is None:
        return
    problem = draft.mismatch(contents.header, candidate.drafting.header)
    if problem:
        name = shown(candidate.settings.draft)
        raise FormError(f"{MODEL}/speculative", f"the draft model {name} {problem}")


def run_at_once(models: Sequence[Candidate], budget: Need) -> int:
    """How many models can be in memory at the same time. A model whose memory is not decided yet
    counts as fitting."""
    needs = [need(model.footprint) for model in models if isinstance(model, Allotted)]
    return max(1, at_once(needs, budget) + len(models) - len(needs))


def with_threads(model: Candidate, machine: Machine) -> Candidate:
    """The model with its part of the CPU threads, once the machine says how many models run at the
    same time. A candidate gets its threads when it is allotted."""
    if not isinstance(model, Allotted):
        return model
    threads, batch = machine.threads_for(model.wanted)
    return replace(model, resolved=replace(model.resolved, threads=threads, threads_batch=batch))


@dataclass(frozen=True)
class _Trial:
    """The ways to run one candidate, each with the footprint that it would have."""

    candidate: Candidate
    contents: Inspected
    site: Site
    room: Vacancy

    async def whole(self, chosen: Sequence[str]) -> Allotted:
        """With these further arguments, which choose GPUs, and nothing cut."""
        resolved = footprint.whole(self.candidate.wanted, self.contents.header, self.site)
        return await self._spread(replace(resolved, placement=(*chosen, *resolved.placement)))

    async def cut(self) -> Allotted:
        """On all GPUs, cut as the planning tool says. The tool counts a little differently from
        llama-server as we start it, and looks at what is free now: where its answer exceeds the
        headroom it is asked once more, for so much less."""
        wanted, machine = self.candidate.wanted, self.site.machine
        model = await self._spread(await footprint.cut(wanted, self.contents, self.site))
        excess = machine.excess(model.footprint.devices)
        if not excess:
            return model
        less = {d: size - excess.get(d, 0) for d, size in machine.headroom.items()}
        smaller = replace(self.site, machine=replace(machine, headroom=less))
        return await self._spread(await footprint.cut(wanted, self.contents, smaller))

    async def _spread(self, resolved: Resolved) -> Allotted:
        """In which proportion several GPUs take it: by what the models before it leave, or, where
        it does not fit so, by the budget of each GPU."""
        placed = (*self.candidate.wanted.placement, *resolved.placement)
        for shares in (self.room.left, self.room.budget):
            split = placement.split(self.site.capabilities.devices, placed, shares)
            model = await self._predicted(
                replace(resolved, placement=(*resolved.placement, *split))
            )
            if not split or self.room.takes(model):
                break
        return model

    async def _predicted(self, resolved: Resolved) -> Allotted:
        candidate, capabilities = self.candidate, self.site.capabilities
        argv = arguments.planning(candidate.settings, resolved, candidate.wanted)
        divided = candidate.wanted.slots(capabilities) > 1
        taken = await footprint.predict(argv, self.contents, self.site, divided=divided)
        taken = taken.plus(candidate.files.projector_size)
        taken = await self._with_guesses(taken, resolved, divided=divided)
        if candidate.wanted.cache_ram is None:  # the prompt cache takes only what nobody needs
            resolved = resolved.with_cache_within(self.room.left_of_host(taken))
        taken = replace(taken, cache=resolved.prompt_cache(capabilities))
        return candidate.allotted(self.contents, resolved, taken)

    async def _with_guesses(
        self, taken: Footprint, resolved: Resolved, *, divided: bool
    ) -> Footprint:
        """With what guesses tokens in advance: a draft model, or a file's heads, which are in its
        last layers."""
        candidate, header = self.candidate, self.contents.header
        if candidate.drafting is not None:
            argv = arguments.draft_planning(resolved, candidate.wanted)
            beside = await footprint.predict(argv, candidate.drafting, self.site, divided=divided)
            if draft.kind(header, candidate.drafting.header) != arguments.BY_DRAFT:
                taken = taken.spread(draft.snapshots(header, resolved.parallel))
            return taken.beside(beside)
        if candidate.settings.guesses and header.predicts_tokens:
            flash = candidate.settings.flash_attention != "off"
            heads = draft.heads_context(header, resolved.context, flash=flash)
            if taken.devices and self.site.capabilities.fit_params is not None:
                heads += draft.heads_weights(header)  # in host memory, the whole file counts
            taken = taken.spread(draft.snapshots(header, resolved.parallel))
            return taken.plus(heads, last=True)
        return taken
