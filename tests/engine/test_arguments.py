from dataclasses import replace

import pytest

from app.engine.arguments import Launch, build, check, draft_planning, ignored_by_cli
from app.engine.flags import Binary
from app.engine.resolved import Resolved, Wanted, memory_wanted
from app.engine.rope import YARN_FIELDS
from app.errors import FormError
from app.form.fields import MODEL_FIELDS
from app.form.settings import ModelSettings

NEW = Binary(
    {
        flag: (flag,)
        for flag in (
            "--model --ctx-size --load-mode --log-jsonl --fit --kv-unified --no-cache-idle-slots "
            "--cache-ram --no-ui --verbosity --cont-batching --no-cont-batching --embedding "
            "--temperature -c --gpu-layers --jinja --flash-attn -np -ngl --numa --no-kv-unified "
            "--cache-type-k --cache-type-v --spec-type --spec-draft-model --spec-draft-ngl"
        ).split()
    }
)
OLD = Binary({flag: (flag,) for flag in "--model --ctx-size --no-mmap --no-webui --temp".split()})
RESOLVED = Resolved(4096, None, 4, 2, 3, 100)
LAUNCH = Launch("/m.gguf", ("--host", "/x.sock"), "name")


def argv(model=None, resolved=RESOLVED, launch=LAUNCH, binary=NEW):
    return " ".join(build(model or ModelSettings(), resolved, launch, binary))


def test_the_whole_command_line():
    assert argv() == (
        "--model /m.gguf --host /x.sock --alias name --ctx-size 4096 --parallel 4 --threads 2 "
        "--threads-batch 3 --cache-ram 100 --fit off --kv-unified --no-cache-idle-slots "
        "--metrics --slots --no-ui --log-jsonl --cont-batching"
    )


def test_an_old_binary_gets_what_it_knows():
    assert argv(ModelSettings(no_mmap=True, temperature=0.5), binary=OLD) == (
        "--model /m.gguf --host /x.sock --alias name --ctx-size 4096 --parallel 4 --threads 2 "
        "--threads-batch 3 --metrics --slots --no-webui --no-mmap --temp 0.5"
    )


@pytest.mark.parametrize(
    "model, expected",
    [
        (ModelSettings(no_mmap=True), "--load-mode none"),
        (ModelSettings(verbose=True), "--verbosity 4"),
        (ModelSettings(continuous_batching=False), "--no-cont-batching"),
        (ModelSettings(temperature=0), "--temperature 0"),
        (ModelSettings(embedding=True), "--pooling mean --batch-size 4096 --ubatch-size 4096"),
        (ModelSettings(embedding=True), "--embedding"),
        (ModelSettings(numa="distributed"), "--numa distribute"),
        (ModelSettings(numa="isolate"), "--numa isolate"),
        (ModelSettings(flash_attention="on"), "--flash-attn on"),
        (ModelSettings(speculative="auto"), "--spec-type ngram-mod"),
        (ModelSettings(kv_cache_type="q8_0"), "--cache-type-k q8_0 --cache-type-v q8_0"),
    ],
)
def test_a_field_sends_its_flag(model, expected):
    assert f" {expected}" in argv(model)


def test_the_files_own_pooling_is_kept():
    launch = Launch("/m.gguf", (), "name", pooling="cls")
    assert "--pooling cls" in argv(ModelSettings(embedding=True), launch=launch)


def test_one_slot_needs_no_unified_kv():
    assert "--kv-unified" not in argv(resolved=Resolved(4096, None, 1, 2, 2, 100))


def test_gpu_layers_and_placement():
    text = argv(resolved=Resolved(4096, 33, 1, 2, 2, 100, ("-ts", "3,1")))
    assert "--gpu-layers 33" in text and "-ts 3,1 --fit off" in text


def test_debug_shows_all():
    assert "--verbosity 5" in argv(launch=Launch("/m.gguf", (), "name", debug=True))


def test_cli_replaces_the_fields_and_is_sent_once():
    model = ModelSettings(cli="-c 2048 -ngl all -np 2 --jinja", temperature=0.3, threads=7)
    assert memory_wanted(model) == Wanted(context=2048, gpu_layers=9999, parallel=2)
    text = argv(model, Resolved(2048, 9999, 2, 2, 2, 100))
    assert text.endswith("--log-jsonl --jinja")
    assert text.count("2048") == 1 and "--temperature" not in text
    assert ignored_by_cli(model) == ["Model/temperature", "Model/threads"]


@pytest.mark.parametrize("flag", ["--no-kv-unified", "-no-kvu"])
def test_extra_arguments_have_the_only_word_on_unified_kv(flag):
    text = argv(ModelSettings(extra_args=flag))
    assert "--kv-unified" not in text and "idle-slots" not in text and text.endswith(flag)


def test_who_asks_for_unified_kv_has_slots_that_keep_theirs():
    text = argv(ModelSettings(extra_args="--kv-unified"))
    assert text.count("--kv-unified") == 1 and "--no-cache-idle-slots" in text


def test_cli_keeps_its_own_word_on_unified_kv():
    assert "--kv-unified" not in argv(ModelSettings(cli="--no-kv-unified")).replace(
        "--no-kv-unified", ""
    )


@pytest.mark.parametrize(
    "model, problem",
    [
        (ModelSettings(cli="--flash-atn on"), "did you mean --flash-attn"),
        (ModelSettings(cli="--zzzz"), "does not know --zzzz"),
    ],
)
def test_a_flag_that_the_binary_does_not_know(model, problem):
    with pytest.raises(FormError, match=problem):
        check(model, NEW)


@pytest.mark.parametrize(
    "cli, hint",
    [
        ("--no-mmap", "--no-mmap any more: use --load-mode none"),
        ("--draft-max 3", "--draft-max: use another one"),
    ],
)
def test_a_flag_that_is_gone_is_refused_with_what_says_the_same_now(cli, hint):
    known = {flag: (flag,) for flag in ("--load-mode", "--no-mmproj")}
    binary = Binary(known, removed={"--draft-max": "use another one"})
    with pytest.raises(FormError, match=hint):
        check(ModelSettings(cli=cli), binary)


def test_the_prompt_cache_may_be_set_in_extra_arguments():
    """It has no field of its own; it is resolved once, and sent once."""
    model = ModelSettings(extra_args="--cache-ram 64 --no-warmup")
    assert memory_wanted(model).cache_ram == 64
    binary = Binary({flag: (flag,) for flag in ("--cache-ram", "--no-warmup")})
    check(model, binary)
    resolved = Resolved(512, None, 1, 1, 1, 64)
    argv = build(model, resolved, Launch("m", (), "m"), binary)
    assert argv.count("--cache-ram") == 1 and argv[argv.index("--cache-ram") + 1] == "64"
    assert argv[-1] == "--no-warmup"
    with pytest.raises(FormError, match="Model/extra_args: -cram much"):
        memory_wanted(ModelSettings(extra_args="--cache-ram much"))


@pytest.mark.parametrize(
    "extra, problem",
    [("--ctx-size 5", "has a field of its own"), ("--fit on", "the app decides what fits")],
)
def test_what_is_decided_otherwise_is_no_extra_argument(extra, problem):
    with pytest.raises(FormError, match=problem):
        check(ModelSettings(extra_args=extra), Binary({"--ctx-size": ("--ctx-size",)}))


def test_another_spelling_of_a_refused_flag_is_refused():
    binary = Binary({"-x": ("-x", "--api-key"), "--model": ("--model",)})
    with pytest.raises(FormError, match="-x is not allowed"):
        check(ModelSettings(cli="-x k"), binary)


def test_a_ticked_box_that_the_binary_cannot_do():
    with pytest.raises(FormError) as raised:
        check(ModelSettings(embedding=True), OLD)
    assert raised.value.field == "Model/embedding"


def test_every_field_that_is_not_ours_reaches_llama_server():
    ours = {"cli", "extra_args", "model", "endpoint_name", "max_concurrent_requests", "mmproj"}
    ours |= {
        "aliases",
        "preload",
        "pin",
        "priority",
        "speculative",  # that depends on the file
        "ttl",
    }
    stretching = {"rope_scaling", *YARN_FIELDS}
    assert {f.name for f in MODEL_FIELDS if not (f.flag or f.on or f.off)} == ours | stretching


def test_extra_arguments_come_besides_the_fields():
    model = ModelSettings(extra_args="--jinja --flash-attn on", temperature=0.5)
    check(model, NEW)
    assert argv(model).endswith("--temperature 0.5 --jinja --flash-attn on")


@pytest.mark.parametrize(
    "text, problem",
    [
        ("-c 1", "field of its own"),
        ("-m x", "fields of their own"),
        ("-a x", "fields of their own"),
        ("-a ,x", "fields of their own"),
        ("--api-key x", "not allowed"),
        ("--zzzz", "does not know"),
        ("'open", "cannot be split"),
    ],
)
def test_extra_arguments_that_are_refused_name_their_field(text, problem):
    with pytest.raises(FormError, match=problem) as raised:
        check(ModelSettings(extra_args=text), NEW)
    assert raised.value.field == "Model/extra_args"


def test_speculation_is_by_the_heads_of_the_file_where_it_has_them():
    told = argv(ModelSettings(speculative="auto"), launch=replace(LAUNCH, heads=True))
    assert " --spec-type draft-mtp" in told
    assert "--spec-type" not in argv(ModelSettings(speculative="off"))


def test_a_draft_model_is_told_with_its_kind():
    model, launch = ModelSettings(speculative="d.gguf"), replace(LAUNCH, draft="/d.gguf")
    told = argv(model, launch=launch)
    assert " --spec-type draft-simple --spec-draft-model /d.gguf" in told
    assert "--spec-draft-ngl" not in told
    for layers, of_draft in ((33, 9999), (0, 0)):
        resolved = Resolved(4096, layers, 4, 2, 2, 100)
        assert f" --spec-draft-ngl {of_draft}" in argv(model, resolved, launch)


def test_a_draft_model_is_planned_with_its_models_context_and_devices():
    wanted = Wanted(placement=("--cache-type-k", "q8_0", "--flash-attn", "on"))
    resolved = Resolved(4096, 33, 4, 2, 2, 100, ("-ts", "3,1", "-ot", "x=CPU"))
    told = draft_planning(resolved, wanted)
    assert told == "-c 4096 -np 4 -ngl 9999 --flash-attn on -ts 3,1".split()


def test_a_model_for_embeddings_has_no_draft_model():
    with pytest.raises(FormError, match="generates no tokens"):
        check(ModelSettings(speculative="d.gguf", embedding=True), NEW)


@pytest.mark.parametrize(
    "chosen, flag",
    [
        ({"speculative": "auto"}, "--spec-type"),
        ({"speculative": "d.gguf"}, "--spec-type"),
        ({"kv_cache_type": "q8_0"}, "--cache-type-k"),
        ({"flash_attention": "on"}, "--flash-attn"),
    ],
)
def test_what_is_chosen_is_not_left_out_without_a_word(chosen, flag):
    with pytest.raises(FormError, match=f"this llama-server knows no {flag}"):
        check(ModelSettings(**chosen), OLD)
