"""What `make install` does besides compiling, which takes minutes."""

import runpy
import subprocess
import sys

from app.models.gguf import verify_file
from tests.test_docs import ROOT


def test_the_quantised_model_of_the_trial_can_be_written(tmp_path):
    """Or the build would be taken to be good without having computed anything."""
    build = runpy.run_path(str(ROOT / "scripts/build_llama_server"))
    path = tmp_path / "m.gguf"
    subprocess.run([sys.executable, "-c", build["WRITE"], path], cwd=ROOT, check=True)
    verify_file(path)
