import pytest

from app.models import gguf, tiny_writer
from app.models.header import Header, Tensor
from app.planning.arithmetic import (
    LEAST_COMPUTE,
    Estimate,
    estimate,
    longest_context,
    most_layers,
    weights,
)

MIB = 1 << 20
# Ten blocks of 100 MiB (no tensor is told apart), and 1 KiB of KV cache for a token of each.
METADATA = {
    "general.architecture": "llama",
    "llama.block_count": 10,
    "llama.attention.head_count": 4,
    "llama.attention.key_length": 64,
    "llama.attention.value_length": 64,
}
EQUAL, SIZE = Header(METADATA, (), 0), 1100 * MIB


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    tiny_writer.write(path)
    return gguf.verify([path]), path.stat().st_size


def test_every_tensor_counts_once(file):
    header, size = file
    parts = weights(header, size)
    assert len(parts.layers) == header.number("block_count") and min(parts.layers) > 0
    tied = parts.embeddings if "output.weight" not in {t.name for t in header.tensors} else 0
    assert parts.embeddings > 0
    assert sum(parts.layers) + parts.output + parts.embeddings - tied <= size


@pytest.mark.parametrize("digits", [10, 5000])  # of so many Python makes no number
def test_a_tensor_with_a_senseless_number_is_in_no_layer(digits):
    named = Tensor("blk." + "9" * digits + ".nextn.x", (4,), 0, 0)
    assert weights(Header(METADATA, (named,), 0), SIZE).layers == (0,) * 10


def test_the_last_layers_are_on_the_gpu():
    context = 1 << 10
    cache = EQUAL.kv_bytes * context
    assert estimate(EQUAL, SIZE, context, None) == Estimate(SIZE + cache + LEAST_COMPUTE, 0)
    assert estimate(EQUAL, SIZE, context, 9999) == estimate(EQUAL, SIZE, context, None)
    assert estimate(EQUAL, SIZE, context, 0) == Estimate(LEAST_COMPUTE, SIZE + cache)
    # The output layer, and three blocks with their part of the cache.
    there = 4 * 100 * MIB + cache * 3 // 10
    assert estimate(EQUAL, SIZE, context, 4) == Estimate(
        there + LEAST_COMPUTE, SIZE + cache - there
    )


@pytest.mark.parametrize("room", [10, 164, 264, 500, 1000, 1190, 2000])
def test_as_many_layers_as_fit_and_no_more(room):
    layers = most_layers(EQUAL, SIZE, 1 << 10, room * MIB)
    fits = estimate(EQUAL, SIZE, 1 << 10, layers).gpu <= room * MIB
    assert fits or layers == 0
    if layers is not None:
        more = layers + 1 if layers < 10 else None
        assert estimate(EQUAL, SIZE, 1 << 10, more).gpu > room * MIB


@pytest.mark.parametrize("room, context", [(100, 4096), (1300, 13824), (9000, 32768)])
def test_the_context_is_as_long_as_there_is_room_for(room, context):
    found = longest_context(EQUAL, SIZE, room * MIB, 4096, 32768)
    assert found == context
    if 4096 < found < 32768:
        assert estimate(EQUAL, SIZE, found, None).gpu <= room * MIB
        assert estimate(EQUAL, SIZE, found + 256, None).gpu > room * MIB


def test_a_model_that_says_nothing_of_itself():
    assert estimate(Header({}, (), 0), 5, 4096, None) == Estimate(5 + LEAST_COMPUTE, 0)
