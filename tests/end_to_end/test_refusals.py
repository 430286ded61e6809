"""Whatever is wrong is found in seconds, told in one line, and ends with its own status."""

import json
import socket

import gguf
import pytest

from app.models import tiny_writer
from tests.end_to_end.conftest import checked, refused

pytestmark = pytest.mark.quick


@pytest.fixture
def ended(start):
    """Start, and wait for the end: the output."""

    def run(status, *arguments, **options):
        app = start(*arguments, **options)
        assert app.wait() == status, app.output
        assert "Traceback" not in app.output
        assert app.folders == []
        return app.output

    return run


@pytest.mark.parametrize(
    "assignment, problem",
    [
        ("Model/context_size=much", "Model/context_size: 'much' is not a whole number"),
        ("Model/cli=--flash-atn on", "Model/cli: this llama-server does not know --flash-atn"),
        ("General/host=0.0.0.0", "General/host: 0.0.0.0 is open to the network"),
    ],
)
def test_a_bad_form(ended, assignment, problem):
    assert problem in ended(2, "--set", assignment, host=None)


@pytest.mark.parametrize(
    "assignment, problem",
    [
        ("Model/parallel=0", "Model/parallel: 0 is less than 1"),
        ("Model/endpoint_name=a b", "Model/endpoint_name: 'a b' is not a URL path"),
        ("Model/cli=--api-key x", "Model/cli: --api-key is not allowed here"),
        ("Model/model=org/repo/m", "Model/model: 'org/repo/m' does not end in .gguf"),
        ("General/llama_server=/none", "General/llama_server: /none is no program"),
        ("General/hf_token=hf_x", "General/hf_token: other users can read"),
        (f"Model/model={'0' * 32}", "is a ClearML model: that needs a server"),
        ("nonsense", "--set nonsense: write it as Section/name=value"),
    ],
)
def test_a_bad_form_that_is_checked(tmp_path, assignment, problem):
    done = checked(tmp_path, "--set", assignment)
    refused(done, problem)
    assert "hf_x" not in done.stdout + done.stderr


def test_a_missing_model(ended, tmp_path):
    assert "no such file" in ended(2, "--model", str(tmp_path / "none.gguf"))


def test_a_truncated_and_a_corrupt_model(ended, tmp_path):
    path = tmp_path / "m.gguf"
    tiny_writer.write(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    output = ended(3, "--model", str(path))
    assert "cut off: tensor" in output and "\nready" not in output
    path.write_bytes(b"GGML" + whole[4:])
    done = checked(tmp_path, "--model", str(path))
    assert done.returncode == 3 and "not a GGUF file" in done.stderr


def test_a_model_that_llama_server_cannot_load(ended, tmp_path):
    """Whole as a file, but not a model: the header names tensors that no llama has."""
    path = tmp_path / "odd.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("nothing", __import__("numpy").zeros(32, "float32"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    output = ended(4, "--model", str(path))
    assert "cannot be loaded: llama-server ended with 1" in output and "error loading" in output


def test_a_port_that_is_taken(ended):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        output = ended(2, port=str(port))
    assert f"General/port: 127.0.0.1:{port} cannot be listened on" in output


@pytest.mark.parametrize("host", ["192.0.2.1", "a b", "a..b", "[]"])  # RFC 5737: nobody's
def test_a_host_that_is_not_here(ended, host):
    output = ended(2, host=host, LLAMACPP_API_KEY="0123456789abcdef")
    assert f"General/host: {host}:0 cannot be listened on" in output


def test_a_configuration_file_and_what_comes_over_it(start, tmp_path):
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"Model": {"endpoint_name": "file", "context_size": 2048}}))
    app = start("--config", str(path), "--set", "Model/endpoint_name=set", recorded=True).ready()
    assert app.line(r"^set +ready +2048 ")
    app.end()
    parameters, _ = app.record()
    assert parameters["Model/endpoint_name"] == "set"
    assert parameters["Model/context_size"] == "2048"


def test_a_split_model_and_a_command_line_of_its_own(start, tmp_path):
    tiny_writer.write(tmp_path / "m.gguf", shard_tensors=8)
    first = tmp_path / "m-00001-of-00003.gguf"
    app = start("--set", f"Model/cli=-m {first} -c 1024 -np 2 -a mine --port 1").ready()
    assert app.line(r"^mine +ready +1024 +2 ")
    assert "--port is set by this app" in app.output
