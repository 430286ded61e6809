import asyncio
import os
import resource
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from app.engine.lifecycle import State
from app.engine.process import Process
from app.engine.program import Program
from app.errors import LoadError

SLEEP = "import time; time.sleep(60)"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); "
STUBBORN += "time.sleep(60)"
ORPHAN = "import subprocess, sys; subprocess.Popen(['sleep', '4']); sys.exit(5)"
LOADING = '{"state":"loading","payload":{"stages":["a"],"current":"a","value":0.5}}'
READY = '{"state":"ready","payload":{"meta":{"n_ctx":77}}}'
BREAKDOWN = (
    '{"type":"fit_memory_breakdown","data":{"rows":[{"kind":"device","name":"CUDA0","self":9}]}}'
)
PROTOCOL = f"""
import sys, time
print('cmd_child_to_router:state:{LOADING}', flush=True)
time.sleep(0.3)
print('cmd_child_to_router:state:{READY}', flush=True)
sys.exit(0 if sys.stdin.readline() == 'cmd_router_to_child:exit\\n' else 9)
"""


def python(code, ready=True, lines=None, on_buffers=lambda devices: None, **options):
    """`lines` takes what it writes."""
    heard = [] if lines is None else lines

    async def is_ready():
        return ready() if callable(ready) else ready

    program = Program(
        [sys.executable, "-c", code],
        dict(os.environ),
        on_line=lambda level, text: heard.append(text),
        on_buffers=on_buffers,
    )
    return Process("model", program, is_ready, **options)


async def never():
    return False


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(run, tmp_path):
    os.mkfifo(tmp_path / "m.gguf")

    async def scenario():
        argv = [sys.executable, "-c", "import sys; open(sys.argv[2])", "--model"]
        file = tmp_path / "m.gguf"
        program = Program([*argv, str(file)], dict(os.environ), files=[file])
        process = Process("model", program, never, stall_timeout=5)
        with pytest.raises(LoadError, match=r"^cannot be loaded: m\.gguf is a pipe, no file$"):
            await process.start()
        assert process.state is State.STOPPED

    run(scenario)


def test_start_then_stop(run):
    async def scenario():
        process = python(SLEEP)
        await process.start()
        assert process.state is State.READY and process.running
        await process.stop()
        assert process.state is State.STOPPED and not process.running
        assert await process.exited() == -signal.SIGTERM

    run(scenario)


def test_exit_before_ready_is_a_load_error_with_its_last_words(run):
    async def scenario():
        code = "import sys; [print('error:', n) for n in range(9)]; sys.exit(3)"
        process = python(code, ready=False)
        with pytest.raises(LoadError, match="ended with 3: error: 0; error: 1$"):
            await process.start()
        assert process.state is State.FAILED

    run(scenario)


def test_callers_are_told_files_by_their_names(run, tmp_path):
    async def scenario():
        model = tmp_path / "a folder" / "m.gguf"
        code = "import sys; n = sys.argv[1]; print(f'error: cannot open /x{n} {n!r}'); sys.exit(1)"
        program = Program([sys.executable, "-c", code, str(model)], dict(os.environ))
        process = Process("model", program, never)
        with pytest.raises(LoadError, match=f"cannot open /x{model} 'm.gguf'$"):
            await process.start()

    run(scenario)


@pytest.mark.parametrize(
    "said, plain, gives_way",
    [
        ("failed to initialize the context: unordered_map::at; failed to create MTP context", 1, 1),
        ('GGML_ASSERT(layer.ffn_up && "MIMO2 MTP requires dense FFN tensors") failed', 1, 1),
        ("failed to allocate buffer for kv cache; failed to create MTP context", 1, 0),
        ("failed to load model", 1, 0),
        ("failed to create MTP context", 0, 0),
    ],
)
def test_heads_that_cannot_be_run_are_done_without(run, said, plain, gives_way):
    """Only where a load failed because of them, and not for want of memory. Result: it is asked
    for the other arguments once, and starts with them."""

    async def scenario():
        told = []
        failing = [sys.executable, "-c", f"import sys; print({'error: ' + said!r}); sys.exit(1)"]
        other = [sys.executable, "-c", SLEEP] if plain else ()
        program = Program(
            failing, dict(os.environ), plain=other, on_plain=lambda: told.append("plain")
        )

        async def is_ready():
            return bool(told)

        process = Process("model", program, is_ready)
        with pytest.raises(LoadError) as raised:
            await process.start()
        assert process.do_without_heads(raised.value) is bool(gives_way)
        assert not process.do_without_heads(raised.value)
        assert len(told) == gives_way
        if gives_way:
            await process.start()
            await process.stop()

    run(scenario)


def test_what_callers_may_have_written_is_nothing_but_log(run):
    """llama-server prints a grammar that it cannot parse to its standard error."""
    said = [f"cmd_child_to_router:state:{READY}", BREAKDOWN, '{"type": "log", "msg": "said"}']

    async def scenario(code):
        heard, buffers = [], []
        process = python(code, lines=heard, on_buffers=buffers.append)
        await process.start()
        await process.exited()
        return process.context, buffers, heard

    code = f"import sys; print(*{said!r}, sep='\\n', file=sys.%s)"
    assert run(scenario, code % "stderr") == (0, [], said)
    assert run(scenario, code % "stdout") == (77, [{"CUDA0": 9 << 20}], ["said"])


def test_a_load_without_a_sign_of_life_is_given_up_and_leaves_no_process(run):
    async def scenario():
        process = python(SLEEP, ready=False, stall_timeout=0.2)
        with pytest.raises(LoadError, match="no sign of progress"):
            await process.start()
        assert process.state is State.STOPPED

    run(scenario)


def test_a_load_that_makes_progress_is_not_killed_by_a_clock(run):
    async def scenario():
        code = "import time\nfor _ in range(10): print('line', flush=True); time.sleep(0.1)\n"
        begun = asyncio.get_running_loop().time()

        def ready():
            return asyncio.get_running_loop().time() - begun > 0.9

        process = python(code + SLEEP, ready=ready, stall_timeout=0.6)
        await process.start()
        await process.stop()

    run(scenario)


def test_a_program_that_cannot_be_run(run):
    async def scenario():
        process = Process("model", Program(["/nonexistent/llama-server"], {}), never)
        with pytest.raises(LoadError):
            await process.start()
        assert not process.running

    run(scenario)


def test_what_it_held_is_told_at_its_end(run):
    async def scenario():
        rows = '[{"kind": "device", "name": "CUDA0", "self": 2}]'
        line = f'{{"type": "fit_memory_breakdown", "data": {{"rows": {rows}}}}}'
        code = (
            "import signal, sys, time\n"
            "signal.signal(signal.SIGTERM, lambda *_: sys.exit())\n"
            "try: print('up', flush=True); time.sleep(60)\n"
            f"finally: print({line!r}, flush=True)"
        )
        told, lines = [], []
        program = Program(
            [sys.executable, "-c", code],
            dict(os.environ),
            on_line=lambda level, text: lines.append(text),
            on_buffers=told.append,
        )

        async def ready():
            return "up" in lines  # its handler is set

        process = Process("model", program, ready)
        await process.start()
        await process.stop()
        assert told == [{"CUDA0": 2 << 20}]

    run(scenario)


def test_the_childs_protocol_tells_progress_and_ready(run):
    async def scenario():
        process = python(PROTOCOL, ready=lambda: process.context > 0)
        starting = asyncio.create_task(process.start())
        seen = set()
        while not starting.done():
            seen.add(process.progress)
            await asyncio.sleep(0.01)
        await starting
        assert process.context == 77 and 0.5 in seen
        await process.stop()
        assert await process.exited() in (0, -signal.SIGTERM)

    run(scenario)


def test_sigkill_after_the_grace_period(run):
    async def scenario():
        up = []
        process = python(STUBBORN, ready=lambda: bool(up), lines=up, grace=0.2)
        await process.start()
        await process.stop()
        assert await process.exited() == -signal.SIGKILL

    run(scenario)


def test_a_second_sigterm_comes_before_the_kill(run, monkeypatch):
    monkeypatch.setattr("app.engine.process.SECOND_SIGTERM", 0.2)

    async def scenario():
        code = textwrap.dedent(
            """
            import signal, sys, time
            terms = []
            def term(*_):
                terms.append(1)
                if len(terms) == 2:
                    sys.exit(1)
            signal.signal(15, term)
            print("up", flush=True)
            time.sleep(30); time.sleep(30)
            """
        )
        up = []
        process = python(code, ready=lambda: bool(up), lines=up, grace=10)
        await process.start()
        await process.stop()
        assert await process.exited() == 1
        assert process.state is State.STOPPED  # a stop that was asked for is a stop

    run(scenario)


def test_a_crash_is_noticed(run):
    async def scenario():
        process = python("raise SystemExit(7)")
        await process.start()
        assert await process.exited() == 7
        assert process.state is State.FAILED

    run(scenario)


def test_start_is_idempotent_and_can_follow_a_crash(run):
    async def scenario():
        process = python(SLEEP)
        await asyncio.gather(process.start(), process.start())
        first = process.pid
        process.kill()
        assert await process.exited() == -signal.SIGKILL
        await process.start()
        assert process.pid != first
        await process.stop()

    run(scenario)


def test_a_crash_is_noticed_while_a_grandchild_holds_the_pipes(run, monkeypatch):
    monkeypatch.setattr("app.engine.process.RELAY_DRAIN", 0.2)

    async def scenario():
        process = python(ORPHAN)
        await process.start()
        assert await asyncio.wait_for(process.exited(), timeout=3) == 5

    run(scenario)


def test_output_without_line_ends_does_not_block_the_child(run):
    async def scenario():
        code = "import sys; sys.stdout.write('x' * 3_000_000); sys.stdout.flush(); sys.exit(0)"
        process = python(code)
        await process.start()
        assert await asyncio.wait_for(process.exited(), timeout=10) == 0

    run(scenario)


def test_a_cancelled_start_leaves_no_process(run):
    async def scenario():
        process = python(SLEEP, ready=False)
        starting = asyncio.create_task(process.start())
        await asyncio.sleep(0.2)
        assert process.state is State.STARTING
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert process.state is State.STOPPED

    run(scenario)


def test_inheritable_descriptors_of_ours_do_not_reach_the_child(run, tmp_path):
    from app.machine.host import close_descriptors_to_children

    async def scenario():
        descriptor = os.open(tmp_path, os.O_RDONLY)
        os.set_inheritable(descriptor, True)
        try:
            close_descriptors_to_children()
            lines = []
            code = "import os; print(sorted(os.listdir('/proc/self/fd')), flush=True)"
            process = python(code, lines=lines)
            await process.start()
            await process.exited()
            assert str(descriptor) not in lines[0] and "'2'" in lines[0]
        finally:
            os.close(descriptor)

    run(scenario)


def test_sigkill_of_the_parent_takes_the_child_along(tmp_path):
    """1. A parent of its own starts a child. 2. The parent is killed. Result: no child."""
    program = textwrap.dedent(
        f"""
        import asyncio, os, sys
        from app.engine.process import Process
        from app.engine.program import Program
        async def ready():
            return True
        async def main():
            program = Program([sys.executable, "-c", {SLEEP!r}], dict(os.environ))
            process = Process("m", program, ready)
            await process.start()
            print(process.pid, flush=True)
            await asyncio.sleep(60)
        asyncio.run(main())
        """
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    assert os.path.exists(f"/proc/{child}")
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(200):
        if gone(child):
            return
        subprocess.run(["sleep", "0.02"])
    raise AssertionError("the child lives on")


def gone(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return True
    return state == "Z"


@pytest.mark.parametrize("left", range(4))
def test_out_of_descriptors(run, left):
    """So many may still be opened. Result: a LoadError that says so, after which nothing is open
    that was not before, and with enough of them it starts."""

    def opened():
        return len(os.listdir("/proc/self/fd"))

    async def scenario():
        process, limits = python(SLEEP), resource.getrlimit(resource.RLIMIT_NOFILE)
        before, following = opened(), os.dup(0)
        os.close(following)
        resource.setrlimit(resource.RLIMIT_NOFILE, (following + left, limits[1]))
        try:
            with pytest.raises(LoadError, match="cannot be run: Too many open files"):
                await process.start()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        assert opened() == before and process.state is State.STOPPED
        await process.start()
        await process.stop()

    run(scenario)
