from pathlib import Path

from app.engine.program import Program


def test_every_file_that_may_decide_what_is_computed_is_known(tmp_path):
    paths = {name: tmp_path / name for name in ("m-1", "m-2", "first", "sec:ond")}
    argv = ["/bin/server", "-m", str(paths["m-1"]), "--lora", "lora", "-c", "4096", "", "a,b:1"]
    argv += ["--control-vector-scaled", f"{paths['first']}:0.5,{paths['sec:ond']}:2"]
    program = Program(argv, {}, files=[paths["m-1"], paths["m-2"]])
    found = program.may_name()
    assert {*paths.values(), Path("lora"), Path("a,b:1")} <= {*found}
    assert len({*found}) == len(found) and Path("/bin/server") not in found
