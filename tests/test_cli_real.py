"""These test the command line with the real denoiser, most in a process of its own."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tifffile

from command_line import names, noisy_picture, shell
from ntkfast.app.cli import main
from ntkfast.app.image_files import ImageFile, read_image, write_image


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX shells")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&-"])
def test_closed_streams(here: Path, closed: str) -> None:
    """Some daemons have such streams: nothing can be said, but the work is done."""
    command = f'"{sys.executable}" -m ntkfast denoise in.png out.png --sigma 25 --steps 2 {closed}'
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done
    assert names() == ["in.png", "out.png"]
    assert "Traceback" not in done.stderr + done.stdout
    assert "NoneType" not in done.stderr + done.stdout


def test_denoise_removes_noise(here: Path) -> None:
    clean = noisy_picture("noisy.png", 48)
    done = shell("denoise", "noisy.png", "out.png", "--sigma", "25")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("noise level 25 (given), ")
    assert done.stdout.endswith(" -> out.png\n")
    before, after = read_image("noisy.png"), read_image("out.png")
    assert after.dtype == np.uint8
    assert after.pixels.shape == (48, 48)
    assert np.mean((after.pixels - clean) ** 2) < 0.5 * np.mean((before.pixels - clean) ** 2)


def test_gain_and_noise_map_of_the_real_denoiser(here: Path) -> None:
    y, x = np.mgrid[:40, :40]
    clean = 12 + 8 * np.sign(np.sin(x / 5.0) + np.cos((x + 2 * y) / 9.0))
    levels = np.where(x < 20, 2.0, 8.0).astype(np.float32)
    rng = np.random.default_rng(0)
    tifffile.imwrite("map.tif", levels)
    tifffile.imwrite("counts.tif", rng.poisson(clean).astype(np.float32))
    tifffile.imwrite("uneven.tif", (clean + levels * rng.standard_normal(clean.shape)).astype(np.float32))
    for name, options in (
        ("counts", "--noise-gain 1 --passes 1"),
        ("uneven", "--sigma-map map.tif --stopping held_out"),
    ):
        assert main(["denoise", f"{name}.tif", f"{name}_out.tif", *options.split(), "--quiet"]) == 0
        before, after = (np.mean((read_image(f"{name}{part}.tif").pixels - clean) ** 2) for part in ("", "_out"))
        assert after < 0.4 * before, name


def test_report_of_the_real_denoiser(here: Path) -> None:
    clean = noisy_picture("noisy.png", 32)
    write_image(ImageFile(clean.astype(np.float32), None, np.dtype(np.uint8), Path("clean.png")), "clean.png")
    options = "--steps 60 --passes 1 --report page.html --clean clean.png"
    done = shell("denoise", "noisy.png", "out.png", *options.split())
    assert (done.returncode, done.stderr) == (0, "")
    page = Path("page.html").read_text(encoding="utf-8")
    noisy, result = (float(re.search(rf"{name}, ([\d.]+) dB", page)[1]) for name in ("noisy", "result"))
    assert result > noisy + 1
    assert page.count("filter weights of the pixel") == 3


def test_denoise_refuses_nan(here: Path) -> None:
    pixels = np.ones((16, 16), np.float32)
    pixels[3, 4] = np.nan
    tifffile.imwrite("nan.tif", pixels)
    done = shell("denoise", "nan.tif", "out.tif", "--sigma", "0.1")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("ntkfast denoise: error: ")
    assert done.stderr.count("\n") == 1
    assert "finite" in done.stderr or "NaN" in done.stderr
    assert names() == ["in.png", "nan.tif"]


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_ctrl_c_stops_the_real_denoiser(here: Path) -> None:
    noisy_picture("noisy.png", 1024)
    command = [sys.executable, "-m", "ntkfast", "denoise", "noisy.png", "out.png", "--sigma", "25", "--threads", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        time.sleep(2.0)
        assert process.poll() is None, "the picture must be large enough for the work to last"
        sent = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        took = time.monotonic() - sent
    assert (process.returncode, out, err) == (130, "", "ntkfast denoise: interrupted\n")
    assert took < 3.0  # half a second is the promise; the rest is for a loaded machine
    assert names() == ["in.png", "noisy.png"]
