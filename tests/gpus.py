"""A machine with GPUs that it does not have: NVML by tests/nvml/libnvidia-ml.c, and a llama-server
that lists them, takes their memory, and computes on the CPU."""

import subprocess
from pathlib import Path

HERE = Path(__file__).parent
NVML, CUDA = HERE / "nvml" / "libnvidia-ml.c", HERE / "cuda" / "libcuda.c"
NAME, UUIDS = "NVIDIA-Sham", ("GPU-aaaa-1111", "GPU-bbbb-2222")
SERVER = """#!/bin/sh
case " $* " in
*" --list-devices "*)
    echo "Available devices:"
    for gpu in {gpus}/[0-9]; do
        read name uuid total used rest < $gpu
        echo "  CUDA${{gpu##*/}}: $name ($total MiB, $((total - used)) MiB free)"
    done
    exit ;;
*" --model "*) echo "$$ {held}" >> {gpus}/0.processes ;;
esac
for word; do
    shift
    [ "$before" = --device ] || [ "$word" = --device ] || set -- "$@" "$word"
    before=$word
done
exec {program} "$@"
"""
PLANNER = """#!/bin/sh
echo "$@" >> {gpus}/asked
case " $* " in
*" --fit-print on "*) echo "CUDA0 {model} 60 40"; echo "Host 1 1 1" ;;
*) echo "-c 2048 -ngl -1" ;;
esac
"""


def compiled(source, library):
    line = ["cc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, source]
    subprocess.run(line, check=True)


class Gpus:
    """GPUs by number: `sizes` in MiB, and what `others` hold of each."""

    def __init__(self, folder, *sizes):
        self.folder, self.sizes = folder / "gpus", sizes
        self.folder.mkdir()
        compiled(NVML, self.folder / "libnvidia-ml.so.1")
        for number in range(len(sizes)):
            self.set(number)

    def set(self, number, others=0, usage=37, temperature=61):
        line = f"{NAME} {UUIDS[number]} {self.sizes[number]} {others} {usage} {temperature}\n"
        fresh = self.folder / f"new-{number}"
        fresh.write_text(line)
        fresh.replace(self.folder / f"{number}")

    def hold(self, number, pid, size):
        with (self.folder / f"{number}.processes").open("a") as file:
            file.write(f"{pid} {size}\n")

    def hide(self):
        """No process is shown, as in a container."""
        (self.folder / "hide").touch()

    def driver(self, *, parks=True):
        """With one that moves processes to CPU RAM and back, if it `parks`."""
        compiled(CUDA, self.folder / "libcuda.so.1")
        (self.folder / "cuda").mkdir()
        if not parks:
            (self.folder / "cuda" / "Checkpoint.fail").touch()

    @property
    def environment(self):
        folder = str(self.folder)
        return {"LD_LIBRARY_PATH": folder, "FAKE_NVML": folder, "CUDA_FAKE": f"{folder}/cuda"}

    def llama_server(self, program, held, model):
        """One that holds so many MiB of the first GPU; `model` is what its planner expects of
        weights, besides 100 for the rest."""
        for name, text in (("llama-server", SERVER), ("llama-fit-params", PLANNER)):
            path = self.folder / name
            text = text.format(gpus=self.folder, held=held, model=model, program=program)
            path.write_text(text)
            path.chmod(0o755)
        return {**self.environment, "LLAMA_SERVER": str(self.folder / "llama-server")}
