"""Tiny models that can be told apart: each has a vocabulary of its own, and says nothing else."""

import re

from app.models import tiny_writer

WORDS = 80
PROMPT = "hello"


def write(folder, names, context=4096):
    """`<name>.gguf` for each name; the words of model `a` are a0, a1, …."""
    kept = tiny_writer.WORDS
    try:
        for seed, name in enumerate(names, start=1):
            tiny_writer.WORDS = [f"{name}{number}" for number in range(WORDS)]
            tiny_writer.write(folder / f"{name}.gguf", seed=seed, context=context)
    finally:
        tiny_writer.WORDS = kept


def said_by(name, text):
    """Whether a text is of this model."""
    return re.fullmatch(rf"([.,]| ?{name}\d+)*", text.strip()) is not None


def words(text):
    """How many tokens a model's text has: each is a word, or a mark."""
    return len(re.findall(r"[.,]|[^ .,]+", text))
