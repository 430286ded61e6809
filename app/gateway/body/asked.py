"""How much a body asks of a model: how many answers, and how long. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from app.errors import RequestError
from app.telemetry.samples import Several

# Fields that llama-server takes for the most tokens of an answer, in the order in which it looks
# for them; /v1/responses puts max_output_tokens in the place of max_tokens.
LIMITS = ("n_predict", "max_completion_tokens", "max_output_tokens", "max_tokens")
TEXTS = ("prompt", "input", "content", "documents", "texts")  # in some path a prompt, or a list
CHOICES = ("n_cmpl", "n")  # the first counts
MOST = 2**31 - 1  # beyond, llama-server refuses a number, or takes another one


@dataclass(frozen=True)
class Asked:
    """`choices` answers to each prompt; `prompts` has how many there are in those of TEXTS that the
    body has. `limits` has those of LIMITS that the body has; -1 is without a limit, None no number.
    `chooses_slot`: it says in which slot it wants to run."""

    prompts: Mapping[str, int] = field(default_factory=dict)
    choices: int = 1
    limits: Mapping[str, int | None] = field(default_factory=dict)
    chooses_slot: bool = False

    @property
    def several(self) -> Several:
        return Several(max(1, self.prompts.get("prompt", 1)), self.choices)


def asked(fields: Mapping[str, object]) -> Asked:
    """Raises RequestError 400."""
    limits = {name: fields[name] for name in LIMITS if fields.get(name) is not None}
    return Asked(
        prompts={n: sum(1 for _ in prompts_in(fields[n])) for n in TEXTS if n in fields},
        choices=max(1, _choices(fields)),
        limits={name: _whole(value) for name, value in limits.items()},
        chooses_slot="id_slot" in fields,
    )


def _choices(fields: Mapping[str, object]) -> int:
    for name in CHOICES:
        if fields.get(name) is not None:
            number = _whole(fields[name])
            if number is not None and abs(number) > MOST:
                raise RequestError(400, f"{name}: must be a whole number from 1 to {MOST}")
            return 1 if number is None else number
    return 1


def _whole(value: object) -> int | None:
    """As llama-server reads a number."""
    return int(value) if isinstance(value, int | float) else None


def prompts_in(value: object) -> Iterator[object]:
    """The prompts of a list, or the only one. A list of token numbers (with texts between them) is
    one prompt."""
    if not isinstance(value, list) or any(isinstance(part, int) for part in value):
        yield value
        return
    for part in value:
        yield from prompts_in(part)
