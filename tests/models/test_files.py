import os

import pytest

from app.errors import FormError
from app.models import files
from app.models.reference import LocalFile


@pytest.mark.parametrize("make", [os.mkfifo, lambda path: os.symlink("/dev/zero", path)])
def test_what_is_there_and_is_no_file_is_told_so(tmp_path, make):
    path = tmp_path / "m.gguf"
    with pytest.raises(FormError, match="m.gguf: no such file on this machine"):
        files.local(LocalFile(str(path)))
    make(path)
    with pytest.raises(FormError, match="m.gguf: is no regular file"):
        files.local(LocalFile(str(path)))
