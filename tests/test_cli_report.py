"""These test ``ntkfast denoise --report``: what the page says, and when it is refused.

A quick function stands in the place of the denoiser.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tifffile

import ntkfast
from command_line import FakeDenoiser, fail, names, save
from ntkfast.app import cli
from ntkfast.app.cli import main
from ntkfast.app.image_files import read_image, write_image


def test_report(here: Path, denoiser: FakeDenoiser, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["denoise", "in.png", "a b.png", "--threads", "1", "--report", "page.html"]) == 0
    assert names() == ["a b.png", "in.png", "page.html"]
    summary, written = capsys.readouterr().out.splitlines()
    assert summary.endswith(" -> a b.png")
    assert written == "report -> page.html"
    page = Path("page.html").read_text(encoding="utf-8")
    assert "<title>in.png, denoised</title>" in page
    assert "ntkfast denoise in.png &#x27;a b.png&#x27; --threads 1 --report page.html" in page
    assert " dB" not in page
    assert len(denoiser.calls) == 1


@pytest.mark.usefixtures("undrawn")
def test_report_with_the_clean_picture(here: Path, denoiser: FakeDenoiser) -> None:
    noisy = read_image("in.png")
    write_image(replace(noisy, pixels=noisy.pixels + 13), "clean.png")
    options = ["--sigma", "12", "--steps", "9", "--rng", "5", "--threads", "2", "--report", "page.html", "--quiet"]
    assert main(["denoise", "in.png", "out.png", *options, "--clean", "clean.png"]) == 0
    page = Path("page.html").read_text(encoding="utf-8")
    assert f"noisy, {20 * np.log10(255 / 13):.2f} dB" in page
    assert f"result, {20 * np.log10(255 / 3):.2f} dB" in page
    assert "PSNR over the number of steps" in page
    first, *more = [{**options, "image": image} for image, options in denoiser.calls]
    assert first["method"] == ntkfast.Tiles(steps=9)
    assert sorted(call["method"].steps for call in more) == [
        (5, 26), (9, 52), (18, 105), (74, 420), (148, 840), (296, 1680),
    ]  # fmt: skip
    for call in more:
        np.testing.assert_array_equal(call.pop("image"), noisy.pixels)
        assert replace(call.pop("method"), steps=None) == ntkfast.Tiles()
        assert replace(call.pop("compute"), progress=None) == ntkfast.Compute(threads=2)
        assert call == {"noise": ntkfast.NoiseModel(12), "rng": 5, "channel_axis": -1}


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("noise", ["map", "gain", "gain and level", "estimated"])
def test_report_runs_with_all_that_was_given(here: Path, denoiser: FakeDenoiser, noise: str) -> None:
    levels = save("map.tif", (12, 17), "float32").pixels
    level = {
        "map": "--sigma-map map.tif", "gain": "--noise-gain 2", "gain and level": "--noise-gain 2 --sigma 3"
    }.get(noise, "")  # fmt: skip
    given = f"{level} --method whole-image --landmarks 50 --stopping sure --report page.html --clean in.png"
    command = ["denoise", "in.png", "out.png", *given.split()]
    assert main(command) == 0
    assert len(denoiser.calls) == 7
    for _, call in denoiser.calls[1:]:
        assert call["noise"] == {
            "map": ntkfast.NoiseModel(levels), "gain": ntkfast.PoissonGaussian(2),
            "gain and level": ntkfast.PoissonGaussian(2, 3), "estimated": ntkfast.NoiseModel(24.83, estimated=True),
        }[noise]  # fmt: skip
        assert replace(call["method"], steps=None) == ntkfast.WholeImage(landmarks=50)
    said = {
        "map": f"{levels.mean():.3g} (from a map)", "gain": "0 with gain 2 (given)",
        "gain and level": "3 with gain 2 (given)", "estimated": "24.8 (estimated)",
    }[noise]  # fmt: skip
    page = Path("page.html").read_text(encoding="utf-8")
    assert f"<tr><th>noise level</th><td>{said}, in the picture&#x27;s units</td></tr>" in page


@pytest.mark.usefixtures("undrawn")
def test_existing_report_is_refused_before_any_work(
    here: Path, denoiser: FakeDenoiser, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("page.html").write_bytes(b"mine")
    command = ["denoise", "in.png", "out.png", "--report", "page.html"]
    assert main(command) == 2
    assert capsys.readouterr().err == "ntkfast denoise: error: the output exists: page.html; --force overwrites it\n"
    assert denoiser.calls == []
    assert names() == ["in.png", "page.html"]
    assert main([*command, "--force"]) == 0
    assert Path("page.html").read_bytes().startswith(b"<!DOCTYPE html>")


@pytest.mark.usefixtures("undrawn")
def test_report_that_appears_during_the_work_is_kept(here: Path, denoiser: FakeDenoiser) -> None:
    denoiser.meanwhile = lambda: Path("page.html").write_bytes(b"mine")
    assert main(["denoise", "in.png", "out.png", "--report", "page.html"]) == 2
    assert Path("page.html").read_bytes() == b"mine"
    assert names() == ["in.png", "out.png", "page.html"]


def test_report_without_matplotlib_exits_1_before_any_work(
    here: Path, denoiser: FakeDenoiser, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # importing it raises ImportError
    assert main(["denoise", "in.png", "out.png", "--report", "page.html"]) == 1
    assert "pip install ntkfast[plot]" in capsys.readouterr().err
    assert denoiser.calls == []
    assert main(["denoise", "in.png", "out.png"]) == 0  # which needs none


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        (
            (12, 18, 3), "uint8",
            "the size of in.png, 12 rows, 17 columns and 3 channels, got 12 rows, 18 columns and 3 channels",
        ),
        ((12, 17), "uint8", "the size of in.png, .* 3 channels, got 12 rows, 17 columns and 1 channel"),
        ((12, 17, 3), "uint16", "the dtype of in.png, uint8, got uint16"),
        ((12, 17, 3), "float32", "the dtype of in.png, uint8, got float32"),
    ],
)  # fmt: skip
def test_clean_picture_that_does_not_fit_exits_2_before_any_work(
    here: Path, denoiser: FakeDenoiser, capsys: pytest.CaptureFixture[str],
    shape: tuple[int, ...], dtype: str, message: str,
) -> None:  # fmt: skip
    save("clean.tif", shape, dtype)
    assert main(["denoise", "in.png", "out.png", "--report", "page.html", "--clean", "clean.tif"]) == 2
    assert re.search(f"error: argument --clean: must have {message}\n$", capsys.readouterr().err)
    assert denoiser.calls == []
    assert names() == ["clean.tif", "in.png"]


def test_clean_picture_with_nan_exits_2(here: Path, denoiser: FakeDenoiser, capsys: pytest.CaptureFixture[str]) -> None:
    save("in.tif", (8, 9), "float32")
    tifffile.imwrite("clean.tif", np.full((8, 9), np.nan, np.float32))
    assert main(["denoise", "in.tif", "out.tif", "--report", "page.html", "--clean", "clean.tif"]) == 2
    assert "argument --clean: must be finite, got NaN" in capsys.readouterr().err
    assert denoiser.calls == []


def test_clean_picture_that_is_not_there_exits_1_before_any_work(
    here: Path, denoiser: FakeDenoiser, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["denoise", "in.png", "out.png", "--report", "page.html", "--clean", "none.png"]) == 1
    assert capsys.readouterr().err == "ntkfast denoise: error: No such file or directory: none.png\n"
    assert denoiser.calls == []


@pytest.mark.usefixtures("undrawn")
def test_report_of_a_floating_point_picture(here: Path, denoiser: FakeDenoiser) -> None:
    save("in.tif", (12, 17), "float32")
    image = read_image("in.tif")
    write_image(replace(image, pixels=image.pixels + 11, dtype=np.dtype(np.float64)), "clean.tif")
    command = ["denoise", "in.tif", "out.tif", "--report", "page.htm", "--clean", "clean.tif"]
    assert main(command) == 0
    peak = np.ptp(image.pixels)
    page = Path("page.htm").read_text(encoding="utf-8")
    assert f"result, {20 * np.log10(peak):.2f} dB" in page
    assert f"peak of {peak:.4g}," in page


@pytest.mark.usefixtures("undrawn")
def test_ctrl_c_during_the_report_keeps_the_picture(here: Path, denoiser: FakeDenoiser) -> None:
    command = ["denoise", "in.png", "out.png", "--report", "page.html", "--clean", "in.png"]
    denoiser.meanwhile = lambda: fail(KeyboardInterrupt())() if len(denoiser.calls) == 3 else None
    assert main(command) == 130
    assert names() == ["in.png", "out.png"]


@pytest.mark.usefixtures("undrawn")
def test_progress_of_the_report(here: Path, denoiser: FakeDenoiser, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: dict[str, list[float]] = {}

    @contextlib.contextmanager
    def progress(label: str, quiet: bool) -> Iterator[Callable[[float], None]]:
        yield shown.setdefault(label, []).append

    monkeypatch.setattr(cli, "_progress", progress)
    assert main(["denoise", "in.png", "out.png", "--report", "page.html", "--clean", "in.png"]) == 0
    assert shown["denoise"] == [0.0, 0.5, 1.0]
    np.testing.assert_allclose(shown["report"], [(run + part) / 6 for run in range(6) for part in (0.0, 0.5, 1.0)])


@pytest.mark.usefixtures("undrawn")
def test_report_in_a_folder_whose_name_is_no_text(here: Path, denoiser: FakeDenoiser) -> None:
    os.mkdir("\udcff")
    assert main(["denoise", "in.png", "\udcff/out.png", "--report", "\udcff/page.html"]) == 0
    assert "\\udcff/out.png" in Path("\udcff/page.html").read_text(encoding="utf-8")
