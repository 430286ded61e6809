"""The container that an agent in docker mode runs a task in; an agent without docker ignores it.

The agent runs `docker run … IMAGE bash -c SCRIPT` and, by default, drops a `--entrypoint`. So an
image whose entry point is a program, as that of llama.cpp's own images is, cannot be used as it
is. SCRIPT brings in git and Python, then runs the task's set-up script, then fetches and runs us.

Held against the command that the agent makes; not tried with docker.
"""

from __future__ import annotations

# llama.cpp's release for CUDA 12.8 and Ubuntu 24.04: what the default image has.
RELEASE = "b11374"
SHA256 = "bd3885b4997a25afc22e9d568fd646d223fec97ca0ccd1a65ab1d423edf624f9"
URL = (
    f"https://github.com/ggml-org/llama.cpp/releases/download/{RELEASE}/"
    f"llama-{RELEASE}-bin-ubuntu-cuda-12.8-x64.tar.gz"
)
ARCHIVE = "/tmp/llama.cpp.tar.gz"
PACKAGES = "ca-certificates curl libbrotli1 libgomp1"  # what llama-server needs and the image lacks

# One command a line: the agent joins the lines with " ; ", and goes on after one that fails.
SET_UP = "\n".join(
    (
        '[ "$LLAMA_SERVER" ] || [ -x /app/llama-server ] || command -v llama-server'
        f' || [ "$(uname -m)" != x86_64 ] || llama_cpp={URL}',
        f'[ -z "$llama_cpp" ] || (apt-get update'
        f" && apt-get install -y --no-install-recommends {PACKAGES})",
        f'[ -z "$llama_cpp" ] || curl -fsSL --retry 3 -o {ARCHIVE} "$llama_cpp"',
        f'[ -z "$llama_cpp" ] || echo "{SHA256}  {ARCHIVE}" | sha256sum -c || rm -f {ARCHIVE}',
        f"[ ! -f {ARCHIVE} ] || (mkdir -p /app && tar -xzf {ARCHIVE} -C /app --strip-components=1)",
        f"rm -f {ARCHIVE}",
    )
)


def describe(image: str, arguments: str, llama_server: str = "") -> dict[str, str]:
    """A task's container as ClearML's API takes it. The set-up script installs llama-server where
    the image has none, unless the form says where it is."""
    return {
        "image": image,
        "arguments": arguments,
        "setup_shell_script": "" if llama_server else SET_UP,
    }
