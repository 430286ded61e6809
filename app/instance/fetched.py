"""The files of a model, once they are on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from app.models.files import ModelFiles
from app.planning import draft
from app.planning.candidate import Allotted
from app.telemetry.speculation import Speculation


@dataclass(frozen=True)
class Fetched:
    """A model's files on this machine, and those of its projector and of its draft model, if it
    has them."""

    model: ModelFiles
    mmproj: ModelFiles | None = None
    draft: ModelFiles | None = None

    @property
    def paths(self) -> tuple[Path, ...]:
        return tuple(
            p for each in (self.model, self.mmproj, self.draft) if each for p in each.paths
        )

    @property
    def size(self) -> int:
        return sum(each.size for each in (self.model, self.mmproj, self.draft) if each)

    @property
    def deciding(self) -> tuple[Path, ...]:
        """Those by which is known what memory the model takes."""
        return (*self.model.paths, *(self.draft.paths if self.draft else ()))


def speculation_of(model: Allotted, files: Fetched) -> Speculation | None:
    """What is known of its guesses, if it makes some."""
    if not model.settings.guesses and files.draft is None:
        return None
    heads = files.model.header.predicts_tokens
    return Speculation(draft.cost(files.model, files.draft, heads=heads))
