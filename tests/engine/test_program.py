from app.engine.program import Program


def test_every_file_that_decides_what_is_computed_is_known(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("m-1", "m-2", "lora", "first", "second", "a,b:1"):
        (tmp_path / name).touch()
    paths = {name: tmp_path / name for name in ("m-1", "m-2", "first", "second")}
    argv = ["no-such-server", "-m", str(paths["m-1"]), "--lora", "lora", "-c", "4096", "", "a,b:1"]
    argv += ["--control-vector-scaled", f"{paths['first']}:0.5,{paths['second']}:2", str(tmp_path)]
    program = Program(argv, {}, files=[paths["m-1"], paths["m-2"]])
    assert {path.name for path in program.named()} == {*paths, "lora", "a,b:1"}
