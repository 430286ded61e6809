"""A model of a plan: a Candidate until its memory is decided, Allotted from then on."""

from __future__ import annotations

from dataclasses import dataclass

from app.engine.resolved import Resolved, Wanted
from app.form.settings import ModelSettings
from app.models.files import Inspected, Located, ModelFiles
from app.models.header import Header
from app.models.parts import Remote
from app.models.reference import Reference, Tiny, shown
from app.planning.footprint import Footprint
from app.planning.settle import TINY_NAME


@dataclass(frozen=True)
class Files:
    """Where a model's files are, and those of its projector and of its draft model, if it has
    them."""

    model: Located
    mmproj: Located | None = None
    draft: Located | None = None

    @property
    def size(self) -> int:
        """Bytes, of the files whose size is known."""
        return sum(each.size for each in self._all if isinstance(each, Remote | ModelFiles))

    @property
    def projector_size(self) -> int:
        """Bytes; 0 without a projector, and if its size is not known yet."""
        return self.mmproj.size if isinstance(self.mmproj, Remote | ModelFiles) else 0

    @property
    def remote(self) -> tuple[Remote, ...]:
        """What is still to be downloaded, if its size is known."""
        return tuple(each for each in self._all if isinstance(each, Remote))

    @property
    def _all(self) -> tuple[Located | None, ...]:
        return (self.model, self.mmproj, self.draft)

    @property
    def missing(self) -> int:
        """Bytes of that."""
        return sum(each.missing for each in self.remote)


@dataclass(frozen=True)
class Candidate:
    """A model with settled settings: what they want of memory, and where its files are. A model of
    ClearML's registry stays a candidate until its files are here."""

    settings: ModelSettings
    reference: Reference
    files: Files
    wanted: Wanted
    drafting: Inspected | None = None  # its draft model's, once its header was read

    @property
    def name(self) -> str:
        return self.settings.endpoint_name

    @property
    def label(self) -> str:
        return TINY_NAME if isinstance(self.reference, Tiny) else shown(self.settings.model)

    def allotted(self, contents: Inspected, resolved: Resolved, footprint: Footprint) -> Allotted:
        return Allotted(
            settings=self.settings,
            reference=self.reference,
            files=self.files,
            wanted=self.wanted,
            drafting=self.drafting,
            contents=contents,
            resolved=resolved,
            footprint=footprint,
        )


@dataclass(frozen=True, kw_only=True)
class Allotted(Candidate):
    """A candidate whose headers were read: with its memory-deciding arguments, and its footprint
    with these."""

    contents: Inspected
    resolved: Resolved
    footprint: Footprint

    @property
    def header(self) -> Header:
        return self.contents.header
