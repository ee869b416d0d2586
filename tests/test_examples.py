"""The example of inverse problems, at a tiny size."""

import subprocess
import sys
from pathlib import Path

import imagecodecs
import pytest

pytest.importorskip("matplotlib")

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "restore_photo.py"


def run(*arguments):
    return subprocess.run([sys.executable, str(EXAMPLE), *arguments], capture_output=True, text=True, timeout=300)


def test_restore_photo_writes_its_figures_and_beats_the_damage(tmp_path):
    done = run("--size", "32", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    for name in ("missing", "scratched", "blurred", "coarse"):
        picture = imagecodecs.png_decode((tmp_path / f"{name}.png").read_bytes())
        assert picture.shape[1] > 2 * picture.shape[0]  # four panels side by side
        (line,) = [line for line in done.stdout.splitlines() if line.startswith(name)]
        assert float(line.split("ntkfast ")[1].split(";")[0]) > 20


@pytest.mark.parametrize("size", ["31", "33", "1000"])
def test_restore_photo_refuses_a_bad_size(size, tmp_path):
    done = run("--size", size, "--out", str(tmp_path))
    assert done.returncode == 2
    assert "argument --size: must be even" in done.stderr
