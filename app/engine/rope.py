"""RoPE and YaRN: how the context is stretched beyond what the model was trained for. Pure.

YaRN: arxiv.org/abs/2309.00071.
"""

from __future__ import annotations

from collections.abc import Iterator

from app.form.fields import MODEL
from app.form.settings import ModelSettings, rope_factor

YARN_FIELDS = ("yarn_ext_factor", "yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow")


def build(model: ModelSettings, *, yarn: bool) -> Iterator[str]:
    """Arguments for scaling by factor or by method, and YaRN's numbers where YaRN is the method.

    `yarn`: YaRN is the file's own method.
    """
    if model.rope_scaling:
        flag = "--rope-scaling" if rope_factor(model) is None else "--rope-scale"
        yield from (flag, model.rope_scaling.lower())
    if not _uses_yarn(model, yarn):
        return
    for name in YARN_FIELDS:
        value = getattr(model, name)
        if value is not None:
            # The form's -1 turns YaRN's extrapolation off; llama-server's -1 is "unset".
            off = name == "yarn_ext_factor" and value == -1
            yield from (f"--{name.replace('_', '-')}", "0" if off else f"{value}")


def warnings(model: ModelSettings, *, yarn: bool, freq_base: float | None) -> list[str]:
    """Settings that do not do what they seem to, with a file of this method and frequency base."""
    if model.cli:
        return []
    told = []
    base = model.rope_freq_base
    if base and freq_base and base != freq_base:
        told.append(f"{MODEL}/rope_freq_base is {base:g}, but the file says {freq_base:g}")
    if not _uses_yarn(model, yarn):
        given = [name for name in YARN_FIELDS if getattr(model, name) is not None]
        told += [f"{MODEL}/{name} is ignored: nothing says yarn" for name in given]
    return told


def _uses_yarn(model: ModelSettings, yarn: bool) -> bool:
    method = model.rope_scaling.lower()
    return method == "yarn" or (yarn and method not in ("none", "linear"))
