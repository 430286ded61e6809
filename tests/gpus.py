"""A machine with GPUs that it does not have: NVML by tests/nvml/libnvidia-ml.c, and a llama-server
that lists them, takes their memory, and computes on the CPU."""

import subprocess
from pathlib import Path

SOURCE = Path(__file__).parent / "nvml" / "libnvidia-ml.c"
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
*) echo "-c 1024 -ngl -1" ;;
esac
"""


class Gpus:
    """GPUs by number: `sizes` in MiB, and what `others` hold of each."""

    def __init__(self, folder, *sizes):
        self.folder, self.sizes = folder / "gpus", sizes
        self.folder.mkdir()
        library = self.folder / "libnvidia-ml.so.1"
        line = ["cc", "-shared", "-fPIC", "-Wall", "-Werror", "-o", library, SOURCE]
        subprocess.run(line, check=True)
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

    @property
    def environment(self):
        return {"LD_LIBRARY_PATH": str(self.folder), "FAKE_NVML": str(self.folder)}

    def llama_server(self, program, held, model):
        """One that holds so many MiB of the first GPU; `model` is what its planner expects of
        weights, besides 100 for the rest."""
        for name, text in (("llama-server", SERVER), ("llama-fit-params", PLANNER)):
            path = self.folder / name
            text = text.format(gpus=self.folder, held=held, model=model, program=program)
            path.write_text(text)
            path.chmod(0o755)
        return {**self.environment, "LLAMA_SERVER": str(self.folder / "llama-server")}
