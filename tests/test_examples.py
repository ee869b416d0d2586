"""These run the examples that other tests do not run, at tiny sizes."""

import subprocess
import sys
from pathlib import Path

import imagecodecs
import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"


def run(example, *arguments):
    command = [sys.executable, str(EXAMPLES / example), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def psnr_by_steps(lines):
    """Return {steps: PSNR} and the PSNR of the noisy picture, of lines such as ``30 steps: PSNR 28.1 dB``."""
    *path, noisy = [line.split("PSNR ") for line in lines]
    assert noisy[0].startswith("noisy")
    return {int(label.split()[0]): float(value.split()[0]) for label, value in path}, float(noisy[1].split()[0])


def test_a_filter_in_ten_lines_denoises():
    done = run("filter_in_ten_lines.py", "32")
    assert done.returncode == 0, done.stderr
    path, noisy = psnr_by_steps(done.stdout.splitlines())
    assert max(path, key=path.get) not in (min(path), max(path))  # the picture before the noise
    assert max(path.values()) > noisy + 3


def test_a_torch_module_as_a_filter():
    pytest.importorskip("torch")
    done = run("torch_module_filter.py", "32")
    assert done.returncode == 0, done.stderr
    network, *lines = done.stdout.splitlines()
    assert network.startswith("Network([Conv(5), ReLU(), Skip([AvgPool(), Conv(3), ReLU(), Upsample()]), Conv(1)]")
    path, noisy = psnr_by_steps(lines)
    assert max(path.values()) > noisy + 3


def test_training_next_to_the_closed_form():
    pytest.importorskip("torch")
    done = run("gradient_descent_closed_form.py", "--size", "16", "--width", "64", "--steps", "30")
    assert done.returncode == 0, done.stderr
    rows = [[float(number) for number in line.split()] for line in done.stdout.splitlines()[2:]]
    step, loss, psnr, closed_form, to_limit, to_own = zip(*rows, strict=True)
    assert (step[0], step[-1]) == (0, 30)
    assert list(loss) == sorted(loss, reverse=True)
    assert psnr[0] == closed_form[0] < psnr[-1]
    assert to_limit[0] == to_own[0] == 0
    assert 0 < to_own[-1] < to_limit[-1] < 0.3


def test_training_next_to_the_closed_form_refuses_a_bad_size():
    pytest.importorskip("torch")
    done = run("gradient_descent_closed_form.py", "--size", "24")
    assert done.returncode == 2
    assert "argument --size: must divide 512, got 24" in done.stderr


@pytest.mark.parametrize("options", [[], ["--network", "vanilla_cnn(1, 5)"]], ids=["default", "network"])
def test_restore_photo_writes_its_figures_and_beats_the_damage(options, tmp_path):
    pytest.importorskip("matplotlib")
    done = run("restore_photo.py", "--size", "32", *options, "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    for name in ("missing", "scratched", "blurred", "coarse"):
        picture = imagecodecs.png_decode((tmp_path / f"{name}.png").read_bytes())
        assert picture.shape[1] > 2 * picture.shape[0]  # four panels side by side
        (line,) = [line for line in done.stdout.splitlines() if line.startswith(name)]
        assert float(line.split("ntkfast ")[1].split(";")[0]) > 20


@pytest.mark.parametrize("size", ["31", "33", "1000"])
def test_restore_photo_refuses_a_bad_size(size, tmp_path):
    pytest.importorskip("matplotlib")
    done = run("restore_photo.py", "--size", size, "--out", str(tmp_path))
    assert done.returncode == 2
    assert "argument --size: must be even" in done.stderr
