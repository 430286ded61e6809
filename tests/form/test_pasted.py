import pytest

from app.errors import FormError
from app.form.pasted import read


def test_a_pasted_command_line():
    line = read('llama-server -m a/b/c.gguf -a "my-name" -c 4096 -ngl -1 --port 80 --jinja --no-ui')
    assert (line.model, line.endpoint_name) == ("a/b/c.gguf", "my-name")
    assert line.argv() == ("-c", "4096", "-ngl", "-1", "--jinja")
    assert [note.split()[1] for note in line.notes] == ["--port", "--no-ui"]


def test_a_command_of_several_lines():
    line = read("llama-server \\\n  -m a/b/c.gguf \\\r\n  -c 4096\n")
    assert (line.model, line.argv()) == ("a/b/c.gguf", ("-c", "4096"))


def test_llama_server_takes_several_names():
    line = read("-a one,two,three")
    assert (line.endpoint_name, line.aliases) == ("one", "two,three")


def test_the_last_of_a_repeated_option_counts():
    assert read("-c 1 --ctx-size 2").last("-c", "--ctx-size") == "2"
    assert read("-c 1").last("-np") is None


@pytest.mark.parametrize(
    "flag",
    [
        "--tools all",
        "--agent",
        "-ag",
        "--mcp-servers-config x",
        "--ui-mcp-proxy",
        "--path /",
        "--media-path /",
        "--log-file x",
        "--log_file x",
        "--slot-save-path x",
        "--models-dir x",
        "--api-key k",
        "--api_key k",
        "--api-key-file k",
        "--ssl-key-file k",
        "--hf-token t",
        "-hft t",
        "--props",
        "--rpc h:1",
        "--reuse-port",
        "--sleep-idle-seconds 1",
        "--model-url http://169.254.169.254/",
        "-mu http://169.254.169.254/",
        "--video-ffmpeg-dir /tmp",
        "-dr gemma3",
        "-hfd org/draft",
        "--gpt-oss-20b-default",
        "--vision-gemma-4b-default",
        "--model-of-tomorrow-default",
        "--version",
        "-h",
    ],
)
def test_refused_by_name(flag):
    with pytest.raises(FormError, match="not allowed") as raised:
        read(f"-c 1 {flag}")
    assert raised.value.field == "Model/cli"


@pytest.mark.parametrize(
    "text, model",
    [
        ("-hf ggml-org/gemma-3-4b-it-GGUF:Q4_K_M -c 1", "ggml-org/gemma-3-4b-it-GGUF:Q4_K_M"),
        ("--hf-repo org/repo", "org/repo"),
        ("-hfr org/repo:Q8_0 -hff dir/m.gguf", "org/repo/dir/m.gguf"),
    ],
)
def test_a_repository_of_the_hub_is_the_model(text, model):
    """llama-server would fetch it by itself, unverified."""
    line = read(text)
    assert line.model == model and not line.has("-hf", "--hf-repo", "-hfr", "-hff")


@pytest.mark.parametrize("text", ["-m m.gguf -hf org/repo", "-hff m.gguf", "-hf"])
def test_what_names_no_model_or_two(text):
    with pytest.raises(FormError, match="-hf"):
        read(text)


@pytest.mark.parametrize("text", ["'open", "stray -c 1", "-m", "-m a b", "-a"])
def test_what_is_no_command_line(text):
    with pytest.raises(FormError):
        read(text)
