"""These test the command line: what it reads, writes, says and returns.

Most tests put a quick function in the place of the denoiser, so that they test the command line alone; those at the end
run the real one in a process of its own.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile

import ntkfast
from ntkfast import _choices
from ntkfast.app import cli, figures, report
from ntkfast.app.cli import main
from ntkfast.app.image_files import ImageFile, read_image, write_image
from ntkfast.network import Network, vanilla_cnn
from ntkfast.restoration.denoise import DenoiseInfo, denoise_ntk

# ------------------------------------------------------------------------------------------------------------- helpers


class FakeDenoiser:
    """This adds 10 to every pixel and remembers how it was called; ``meanwhile`` runs during the work."""

    def __init__(self) -> None:
        self.calls: list[tuple[np.ndarray, dict[str, Any]]] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def __call__(self, image: np.ndarray, **options: Any) -> Any:
        self.calls.append((image, options))
        progress = options["compute"].progress or (lambda _: None)
        for fraction in (0.0, 0.5, 1.0):
            progress(fraction)
        self.meanwhile()
        noise = options["noise"] or ntkfast.NoiseModel(24.83, estimated=True)
        level = 1.0 if isinstance(noise, ntkfast.PoissonGaussian) else float(np.mean(noise.sigma))
        method = options["method"]
        info = DenoiseInfo(
            method=replace(method, size=16, overlap=8) if isinstance(method, ntkfast.Tiles) else method, noise=noise,
            level=level, tiles=4096, steps=(37, 210), learning_rate=(0.01, 0.02), stopping=method.stopping,
            passes=method.passes, seconds=3.21,
        )  # fmt: skip
        return (image + 10, info) if options.get("return_info") else image + 10


@pytest.fixture
def denoiser(monkeypatch: pytest.MonkeyPatch) -> FakeDenoiser:
    fake = FakeDenoiser()
    monkeypatch.setattr(ntkfast, "denoise_ntk", fake, raising=False)
    return fake


class FakeKernel:
    """Its filter weights fall off with the distance from the pixel, 4 at the pixel itself; -1 in the first column."""

    calls: list[tuple[Network, np.ndarray, dict[str, Any]]]

    def __init__(self, network: Network, image: np.ndarray, **options: Any) -> None:
        self.shape = image.shape[:2]
        FakeKernel.calls.append((network, image, options))

    def affinity(self, row: int, col: int) -> np.ndarray:
        y, x = np.ogrid[: self.shape[0], : self.shape[1]]
        weights = 4.0 * np.exp(-((y - row) ** 2 + (x - col) ** 2) / 20)
        weights[:, 0] = -1.0
        return weights


class FakeCovariance(FakeKernel):
    """In place of NNGP: its calls have another kernel among their options."""

    def __init__(self, network: Network, image: np.ndarray, **options: Any) -> None:
        super().__init__(network, image, kernel="nngp", **options)


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Network, np.ndarray, dict[str, Any]]]:
    FakeKernel.calls = []
    monkeypatch.setattr(ntkfast, "NTK", FakeKernel, raising=False)
    monkeypatch.setattr(ntkfast, "NNGP", FakeCovariance, raising=False)
    monkeypatch.setattr(ntkfast, "vanilla_cnn", vanilla_cnn, raising=False)
    return FakeKernel.calls


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make figures but do not draw them, which takes most of a report's time."""
    png = bytes(imagecodecs.png_encode(np.zeros((2, 2), np.uint8)))
    monkeypatch.setattr(figures, "render", lambda figure, form: png)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty directory the current one, with a small 8 bit colour picture ``in.png``."""
    monkeypatch.chdir(tmp_path)
    save("in.png", (12, 17, 3))
    return tmp_path


def save(name: str, shape: tuple[int, ...], dtype: str = "uint8", alpha: bool = False) -> ImageFile:
    """Write and return a random picture with values from 1 to 200."""
    rng = np.random.default_rng(0)
    pixels = rng.uniform(1, 200, shape).astype(dtype).astype(np.float32)
    plane = rng.uniform(0, 200, shape[:2]).astype(dtype) if alpha else None
    image = ImageFile(pixels, plane, np.dtype(dtype), Path(name))
    write_image(image, name)
    return image


def names() -> list[str]:
    return sorted(os.listdir())


# ------------------------------------------------------------------------------------------------------------- denoise


@pytest.mark.parametrize("alpha", [False, True], ids=["opaque", "alpha"])
@pytest.mark.parametrize("shape", [(12, 17), (12, 17, 3)], ids=["gray", "rgb"])
@pytest.mark.parametrize(
    ("extension", "dtype"),
    [(".png", "uint8"), (".png", "uint16"), (".tif", "uint8"), (".tif", "uint16"), (".tif", "float16"),
     (".tiff", "float32")],
)  # fmt: skip
def test_size_dtype_and_alpha_are_preserved(
    here: Path, denoiser: FakeDenoiser, extension: str, dtype: str, shape: tuple[int, ...], alpha: bool
) -> None:
    image = save("a" + extension, shape, dtype, alpha)
    assert main(["denoise", "a" + extension, "b" + extension]) == 0
    back = read_image("b" + extension)
    assert back.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(back.pixels, (image.pixels + 10).astype(dtype))
    if alpha:
        np.testing.assert_array_equal(back.alpha, image.alpha)
    else:
        assert back.alpha is None
    pixels, options = denoiser.calls[0]
    np.testing.assert_array_equal(pixels, image.pixels)  # alpha is not filtered, and units are the file's own
    assert options["channel_axis"] == (-1 if len(shape) == 3 else None)


def test_jpeg(here: Path, denoiser: FakeDenoiser) -> None:
    assert main(["denoise", "in.png", "a.jpg"]) == 0
    assert main(["denoise", "a.jpg", "b.jpg"]) == 0
    assert read_image("b.jpg").pixels.shape == (12, 17, 3)


def test_16_bit_rgb_is_not_reduced_to_8_bit(here: Path, denoiser: FakeDenoiser) -> None:
    values = np.arange(12 * 17 * 3, dtype=np.uint16).reshape(12, 17, 3) * 100 + 3
    Path("a.png").write_bytes(imagecodecs.png_encode(values))
    assert main(["denoise", "a.png", "b.png"]) == 0
    stored = imagecodecs.png_decode(Path("b.png").read_bytes())
    assert stored.dtype == np.uint16
    np.testing.assert_array_equal(stored, values + 10)


def test_options_not_given_are_left_to_the_denoiser(here: Path, denoiser: FakeDenoiser) -> None:
    assert main(["denoise", "in.png", "out.png"]) == 0
    assert denoiser.calls[0][1] == {
        "noise": None, "channel_axis": -1, "method": ntkfast.Tiles(), "compute": ntkfast.Compute(), "return_info": True
    }  # fmt: skip


def test_options_given_reach_the_denoiser(here: Path, denoiser: FakeDenoiser) -> None:
    options = "--sigma 12.5 --steps 9 --size 24 --overlap 0 --passes 1 --rng 0 --threads 2 --device cpu --strength 0.5"
    assert main(["denoise", "in.png", "out.png", *options.split()]) == 0
    assert denoiser.calls[0][1] == {
        "noise": ntkfast.NoiseModel(12.5), "channel_axis": -1, "strength": 0.5, "rng": 0, "return_info": True,
        "method": ntkfast.Tiles(steps=9, size=24, overlap=0, passes=1), "compute": ntkfast.Compute("cpu", threads=2),
    }  # fmt: skip
    options = "--noise-gain 0.5 --sigma 3 --method whole-image --landmarks 99 --stopping recorrupted --force"
    assert main(["denoise", "in.png", "out.png", *options.split()]) == 0
    call = denoiser.calls[1][1]
    assert call["noise"] == ntkfast.PoissonGaussian(0.5, 3)
    assert call["method"] == ntkfast.WholeImage(landmarks=99, stopping="recorrupted")
    assert main(["denoise", "in.png", "out.png", "--force", "--sigma", "5,6.5,7"]) == 0
    assert denoiser.calls[2][1]["noise"] == ntkfast.NoiseModel([5, 6.5, 7])


def test_steps_of_each_pass_and_small_tiles(here: Path, denoiser: FakeDenoiser) -> None:
    assert main(["denoise", "in.png", "out.png", "--steps", "153,1093"]) == 0
    assert main(["denoise", "in.png", "out.png", "--force", "--steps", "5,6,7", "--passes", "3"]) == 0
    assert [call[1]["method"].steps for call in denoiser.calls] == [(153, 1093), (5, 6, 7)]
    assert main(["denoise", "in.png", "out.png", "--force", "--size", "4"]) == 0
    assert denoiser.calls[-1][1]["method"] == ntkfast.Tiles(size=4)


def test_help_names_the_defaults_of_the_denoiser() -> None:
    tiles = ntkfast.Tiles()
    assert _choices.METHODS[0].replace("-", "") == type(tiles).__name__.lower()
    assert f"{_choices.METHODS[0]} (the default)" in cli.METHOD_HELP
    assert f"Default: {tiles.stopping}" in cli.STOPPING_HELP
    assert f"default: {tiles.passes})" in cli.PASSES_HELP
    assert f"default: {tiles.size})" in cli.SIZE_HELP
    assert f"default: {ntkfast.Compute().device}," in cli.DEVICE_HELP
    assert inspect.signature(denoise_ntk).parameters["strength"].default == 1
    assert f"up to {len(report.PATH_FACTORS) - 1} more" in cli.CLEAN_HELP
    for kind, names in ((ntkfast.Tiles, cli.TILES_OPTIONS), (ntkfast.WholeImage, cli.WHOLE_IMAGE_OPTIONS)):
        assert {*names, *cli.PASSES_OPTIONS} <= inspect.signature(kind).parameters.keys()
    assert set(cli.COMPUTE_OPTIONS) <= inspect.signature(ntkfast.Compute).parameters.keys()


@pytest.mark.parametrize(("name", "dtype"), [("map.tif", "float32"), ("map.png", "uint8"), ("map.png", "uint16")])
def test_noise_map_reaches_the_denoiser(
    here: Path, denoiser: FakeDenoiser, capsys: pytest.CaptureFixture[str], name: str, dtype: str
) -> None:
    levels = save(name, (12, 17), dtype).pixels
    assert main(["denoise", "in.png", "out.png", "--sigma-map", name]) == 0
    assert denoiser.calls[0][1]["noise"] == ntkfast.NoiseModel(levels)
    assert capsys.readouterr().out.startswith(f"noise level {levels.mean():.3g} (from a map), ")


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (
            np.ones((12, 18)),
            "a gray picture of 12 rows and 17 columns as in.png is, got 12 rows, 18 columns",
        ),
        (np.ones((12, 17, 3)), "a gray picture of 12 rows and 17 columns as in.png is, got 12 rows, 17 columns"),
        (np.zeros((12, 17)), "finite and > 0 at every pixel"),
        (np.full((12, 17), np.nan), "finite and > 0 at every pixel"),
        (np.full((12, 17), np.inf), "finite and > 0 at every pixel"),
    ],
)
def test_noise_map_that_does_not_fit_exits_2_before_any_work(
    here: Path, denoiser: FakeDenoiser, capsys: pytest.CaptureFixture[str], pixels: np.ndarray, message: str
) -> None:
    tifffile.imwrite("map.tif", pixels.astype(np.float32), photometric="rgb" if pixels.ndim == 3 else "minisblack")
    assert main(["denoise", "in.png", "out.png", "--sigma-map", "map.tif"]) == 2
    assert f"error: argument --sigma-map: must be {message}" in capsys.readouterr().err
    assert denoiser.calls == []
    assert names() == ["in.png", "map.tif"]


def test_noise_map_that_is_not_there_exits_1_before_any_work(
    here: Path, denoiser: FakeDenoiser, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["denoise", "in.png", "out.png", "--sigma-map", "none.tif"]) == 1
    assert capsys.readouterr().err == "ntkfast denoise: error: No such file or directory: none.tif\n"
    assert denoiser.calls == []


def test_summary(here: Path, denoiser: FakeDenoiser, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["denoise", "in.png", "out.png"]) == 0
    out, err = capsys.readouterr()
    work = "4096 tiles of 16 x 16 pixels, overlapping by 8, 37 + 210 steps (sure), 3.2 s"
    assert out == f"noise level 24.8 (estimated), {work} -> out.png\n"
    assert err == ""
    assert main(["denoise", "in.png", "out.png", "--force", "--sigma", "12345"]) == 0
    assert capsys.readouterr().out.startswith("noise level 12345 (given), ")
    assert main(["denoise", "in.png", "out.png", "--force", "--noise-gain", "0.5", "--method", "whole-image"]) == 0
    assert capsys.readouterr().out.startswith(
        "noise level 0 with gain 0.5 (given), whole image, exact kernel, 37 + 210"
    )
    options = "--noise-gain 2 --sigma 3 --stopping held_out --method whole-image --landmarks 9"
    assert main(["denoise", "in.png", "out.png", "--force", *options.split()]) == 0
    out = capsys.readouterr().out
    assert out.startswith("noise level 3 with gain 2 (given), ")
    assert "37 + 210 steps (held_out)" in out
    assert main(["denoise", "in.png", "out.png", "--force", "--quiet"]) == 0
    assert capsys.readouterr() == ("", "")


def test_file_name_that_is_no_text(here: Path, denoiser: FakeDenoiser, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["denoise", "in.png", "\udcff.png"]) == 0
    assert capsys.readouterr().out.endswith("-> \\udcff.png\n")


@pytest.mark.parametrize(
    ("terminal", "quiet", "shown"), [(True, False, True), (True, True, False), (False, False, False)]
)
def test_progress_only_on_a_terminal(
    here: Path, denoiser: FakeDenoiser, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    terminal: bool, quiet: bool, shown: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    assert main(["denoise", "in.png", "out.png", *(["--quiet"] if quiet else [])]) == 0
    assert (denoiser.calls[0][1]["compute"].progress is not None) == shown
    out, err = capsys.readouterr()
    assert ("%" in err) == shown
    assert "%" not in out


# ----------------------------------------------------------------------------------------------------- overwriting


def test_existing_output_is_refused_before_any_work(
    here: Path, denoiser: FakeDenoiser, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("out.png").write_bytes(b"mine")
    assert main(["denoise", "in.png", "out.png"]) == 2
    assert capsys.readouterr().err == "ntkfast denoise: error: the output exists: out.png; --force overwrites it\n"
    assert denoiser.calls == []
    assert Path("out.png").read_bytes() == b"mine"
    assert main(["denoise", "in.png", "out.png", "--force"]) == 0
    assert read_image("out.png").pixels.shape == (12, 17, 3)
    assert names() == ["in.png", "out.png"]


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
def test_input_is_not_overwritten_unasked(
    here: Path, denoiser: FakeDenoiser, capsys: pytest.CaptureFixture[str], link: Callable[[str, str], None] | None
) -> None:
    before, out = Path("in.png").read_bytes(), "in.png"
    if link is not None:
        link("in.png", out := "out.png")
    assert main(["denoise", "in.png", out]) == 2
    assert f"the output is the input file itself: {out}; --force" in capsys.readouterr().err
    assert denoiser.calls == []
    assert Path("in.png").read_bytes() == before
    expected = read_image("in.png").pixels + 10
    assert main(["denoise", "in.png", out, "--force"]) == 0
    np.testing.assert_array_equal(read_image(out).pixels, expected)


def test_output_that_appears_during_the_work_is_kept(here: Path, denoiser: FakeDenoiser) -> None:
    denoiser.meanwhile = lambda: Path("out.png").write_bytes(b"mine")
    assert main(["denoise", "in.png", "out.png"]) == 2
    assert Path("out.png").read_bytes() == b"mine"
    assert names() == ["in.png", "out.png"]


# -------------------------------------------------------------------------------------------------------------- report


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


# ---------------------------------------------------------------------------------------------------------- exit codes


def fail(error: BaseException) -> Callable[..., Any]:
    def function(*_: object, **__: object) -> None:
        raise error

    return function


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("image must be finite,\n got NaN"), "image must be finite, got NaN"),
        (MemoryError("needs 5 GiB"), "out of memory: needs 5 GiB"),
        (MemoryError(), "out of memory: try smaller tiles"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_failing_work_exits_1_with_one_line(
    here: Path, denoiser: FakeDenoiser, capsys: pytest.CaptureFixture[str], error: Exception, message: str
) -> None:
    denoiser.meanwhile = fail(error)
    assert main(["denoise", "in.png", "out.png"]) == 1
    assert capsys.readouterr() == ("", f"ntkfast denoise: error: {message}\n")
    assert main(["denoise", "in.png", "out.png", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err
    assert names() == ["in.png"]


@pytest.mark.parametrize("moment", ["importing", "denoising", "writing"])
def test_ctrl_c_exits_130_with_nothing_written(
    here: Path, denoiser: FakeDenoiser, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    if moment == "denoising":
        denoiser.meanwhile = fail(KeyboardInterrupt())
    elif moment == "importing":  # as pybind11 reports it
        failed = ImportError("initialization failed")
        failed.__cause__ = KeyboardInterrupt()
        denoiser.meanwhile = fail(failed)
    else:
        monkeypatch.setattr(os, "fsync", fail(KeyboardInterrupt()))
    assert main(["denoise", "in.png", "out.png"]) == 130
    assert capsys.readouterr() == ("", "ntkfast denoise: interrupted\n")
    assert names() == ["in.png"]


def test_full_disk(here: Path, denoiser: FakeDenoiser, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(os, "fsync", fail(OSError(28, "No space left on device")))
    assert main(["denoise", "in.png", "out.png"]) == 1
    assert capsys.readouterr().err == "ntkfast denoise: error: No space left on device: out.png\n"
    assert names() == ["in.png"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.png", None, "No such file or directory: none.png"),
        ("empty.png", b"", "cannot read empty.png: must be a PNG, JPEG or TIFF file, but it is empty"),
        (
            "text.png",
            b"hello, world",
            "cannot read text.png: must be a PNG, JPEG or TIFF file, but it starts with b'hello",
        ),
        ("cut.png", b"\x89PNG\r\n\x1a\n\0\0", "cannot read cut.png: the file is damaged or incomplete"),
    ],
)
def test_unreadable_input_exits_1(
    here: Path,
    denoiser: FakeDenoiser,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: bytes | None,
    message: str,
) -> None:
    if content is not None:
        Path(name).write_bytes(content)
    assert main(["denoise", name, "out.png"]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"ntkfast denoise: error: {message}")
    assert err.count("\n") == 1
    assert denoiser.calls == []
    assert "out.png" not in names()


def test_directory_that_does_not_exist_exits_1_before_any_work(
    here: Path, denoiser: FakeDenoiser, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["denoise", "in.png", "none/out.png"]) == 1
    assert capsys.readouterr().err == "ntkfast denoise: error: No such file or directory: none\n"
    assert denoiser.calls == []


@pytest.mark.parametrize(
    ("name", "dtype", "alpha", "out", "message"),
    [
        ("a.tif", "float32", False, "out.png", "a PNG file cannot hold float32 samples as a.tif has"),
        ("a.png", "uint16", False, "out.jpg", "a JPEG file cannot hold uint16 samples as a.png has"),
        ("a.png", "uint8", True, "out.jpg", "a JPEG file cannot hold an alpha plane as a.png has"),
    ],
)
def test_format_that_does_not_fit_exits_1_before_any_work(
    here: Path, denoiser: FakeDenoiser, capsys: pytest.CaptureFixture[str],
    name: str, dtype: str, alpha: bool, out: str, message: str,
) -> None:  # fmt: skip
    save(name, (12, 17, 3), dtype, alpha)
    assert main(["denoise", name, out]) == 1
    assert f"error: {message}; give the output a name that ends in" in capsys.readouterr().err
    assert denoiser.calls == []
    assert out not in names()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "the following arguments are required: COMMAND"),
        ("sharpen", "invalid choice: 'sharpen'"),
        ("denoise in.png", "the following arguments are required: OUT"),
        ("denoise in.png out.gif", "argument OUT: the output's name must end in .png, .jpg"),
        ("denoise in.png out.png --sigma 0", "argument --sigma: must be a finite number > 0, got '0'"),
        ("denoise in.png out.png --sigma nan", "argument --sigma: must be a finite number > 0, got 'nan'"),
        ("denoise in.png out.png --sigma inf", "argument --sigma: must be a finite number > 0, got 'inf'"),
        ("denoise in.png out.png --sigma x", "argument --sigma: must be a finite number > 0, got 'x'"),
        ("denoise in.png out.png --noise-gain 0", "argument --noise-gain: must be a finite number > 0, got '0'"),
        (
            "denoise in.png out.png --sigma 1 --sigma-map in.png",
            "argument --sigma-map: not allowed with argument --sigma\n",
        ),
        (
            "denoise in.png out.png --noise-gain 1 --sigma-map in.png",
            "argument --sigma-map: not allowed with argument --noise-gain\n",
        ),
        (
            "denoise in.png out.png --noise-gain 1 --sigma 1,2,3",
            "argument --sigma: must be one number with --noise-gain, got 3\n",
        ),
        (
            "denoise in.png out.png --sigma 1,2",
            "argument --sigma: must be one number or, for 3 channels, as many, got 2",
        ),
        ("denoise in.png out.png --sigma 1,0,2", "argument --sigma: must be a finite number > 0, got '0'"),
        ("denoise in.png out.png --strength -1", "argument --strength: must be a finite number >= 0, got '-1'"),
        ("denoise in.png out.png --landmarks 9", "argument --landmarks: needs --method whole-image\n"),
        ("denoise in.png out.png --method whole-image --size 9", "argument --size: needs --method tiles\n"),
        ("denoise in.png out.png --method fast", "argument --method: invalid choice: 'fast'"),
        ("denoise in.png out.png --stopping never", "argument --stopping: invalid choice: 'never'"),
        ("denoise in.png out.png --landmarks 0", "argument --landmarks: must be an integer >= 1, got '0'"),
        (
            "denoise in.png out.png --steps 0",
            "argument --steps: must be an integer >= 1, or several as in 150,1000, got '0'",
        ),
        ("denoise in.png out.png --steps 1.5", "argument --steps: must be an integer >= 1, or several"),
        ("denoise in.png out.png --steps 5,", "argument --steps: must be an integer >= 1, or several"),
        ("denoise in.png out.png --steps 5,0", "argument --steps: must be an integer >= 1, or several"),
        (
            "denoise in.png out.png --steps 5,6,7",
            "argument --steps: must be one number or 2, one for each pass, got 3\n",
        ),
        ("denoise in.png out.png --steps 5,6 --passes 1", "argument --steps: must be one number or 1, one for each"),
        (
            "denoise in.png out.png --overlap 16",
            "argument --overlap: must be below --size, 16, got 16\n",
        ),
        (
            "denoise in.png out.png --size 4 --overlap 5",
            "argument --overlap: must be below --size, 4, got 5\n",
        ),
        ("denoise in.png out.png --threads 5000", "argument --threads: must be an integer from 1 to 1024, got '5000'"),
        ("denoise in.png out.png --size 0", "argument --size: must be an integer >= 1"),
        ("denoise in.png out.png --overlap -1", "argument --overlap: must be an integer >= 0, got '-1'"),
        ("denoise in.png out.png --passes 0", "argument --passes: must be an integer >= 1"),
        ("denoise in.png out.png --rng -1", "argument --rng: must be an integer >= 0"),
        ("denoise in.png out.png --threads 0", "argument --threads: must be an integer from 1 to 1024"),
        (
            "denoise in.png out.png --device gpu",
            "argument --device: must be 'auto', 'cpu', 'cuda' or 'cuda:N', got 'gpu'",
        ),
        ("denoise in.png out.png --report out.txt", "argument --report: must be named *.html or *.htm, got 'out.txt'"),
        ("denoise in.png out.png --clean in.png", "argument --clean: needs --report PAGE, on which it is used"),
        ("denoise in.png out.png --device cuda:x", "argument --device: must be 'auto', 'cpu', 'cuda' or 'cuda:N', got"),
        ("affinity in.png -o out.png", "the following arguments are required: --at"),
        ("affinity in.png --at 1,2", "the following arguments are required: -o/--output"),
        (
            "affinity in.png --at 1 -o out.png",
            "argument --at: must be ROW,COL, two integers >= 0 such as 120,45, got '1'",
        ),
        ("affinity in.png --at 1,2,3 -o out.png", "argument --at: must be ROW,COL"),
        ("affinity in.png --at 1,x -o out.png", "argument --at: must be ROW,COL"),
        ("affinity in.png --at=-1,2 -o out.png", "argument --at: must be ROW,COL"),
        ("affinity in.png --at 1,2 -o out.jpg", "argument -o/--output: must be named *.png, .pdf, .svg, got 'out.jpg'"),
        ("affinity in.png --at 1,2 -o out.png --kernel-size 4", "--kernel-size: must be an odd integer >= 1, got '4'"),
        ("affinity in.png --at 1,2 -o out.png --depth 0", "argument --depth: must be an integer >= 1"),
        ("affinity in.png --at 1,2 -o out.png --padding same", "argument --padding: invalid choice: 'same'"),
        ("affinity in.png --at 1,2 -o out.png --kernel rbf", "argument --kernel: invalid choice: 'rbf'"),
    ],
)
def test_wrong_arguments_exit_2(
    here: Path, denoiser: FakeDenoiser, kernels: list, capsys: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    assert main(arguments.split()) == 2
    assert message in capsys.readouterr().err
    assert names() == ["in.png"]
    assert denoiser.calls == []
    assert kernels == []


# ----------------------------------------------------------------------------------------------------------- help, info


@pytest.mark.parametrize("command", ["denoise", "affinity", "info"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert "130 interrupted" in " ".join(capsys.readouterr().out.split())


def test_help_states_the_units_of_sigma(capsys: pytest.CaptureFixture[str]) -> None:
    main(["denoise", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "0..255 for 8 bit files, 0..65535 for 16 bit files, the file's own units for floating point files" in text


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(ntkfast, "__version__", "1.2.3", raising=False)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "ntkfast 1.2.3\n"


def test_info(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"version": "1.2.3", "isa_compiled": ["baseline", "avx2"], "threads_by": "OpenMP", "something new": 5}
    facts["cards"] = [
        {"name": "A", "capability": "9.0", "bytes": 2**31},
        {"name": "B", "capability": "8.6", "bytes": 4},
    ]
    facts |= {"nothing": [], "missing": None}
    monkeypatch.setattr(ntkfast, "info", lambda: facts, raising=False)
    monkeypatch.setenv("NTKFAST_ISA", "baseline")
    assert main(["info"]) == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    shown = {key: value.strip() for key, value in lines.items()}
    assert shown["isa_compiled"] == "baseline, avx2"
    assert shown["threads_by"] == "OpenMP"
    assert shown["something new"] == "5"
    assert shown["cards"] == "0: A, capability 9.0, 2.0 GiB (2147483648 bytes); 1: B, capability 8.6, 4 bytes"
    assert shown["nothing"] == shown["missing"] == "none"
    assert shown["NTKFAST_ISA"] == "baseline"
    assert (
        len({len(line) - len(shown[key]) for key, line in zip(lines, map(": ".join, lines.items()), strict=True)}) == 1
    )
    monkeypatch.delenv("NTKFAST_ISA")
    assert main(["info", "--json"]) == 0
    parsed = json.loads(capsys.readouterr().out)
    assert parsed["isa_compiled"] == ["baseline", "avx2"]
    assert parsed["NTKFAST_ISA"] == "not set"


# ------------------------------------------------------------------------------------------------------------ affinity


@pytest.mark.parametrize(("name", "start"), [("a.png", b"\x89PNG"), ("a.pdf", b"%PDF"), ("a.SVG", b"<?xml")])
def test_affinity_draws_a_figure(here: Path, kernels: list, name: str, start: bytes) -> None:
    assert main(["affinity", "in.png", "--at", "3,11", "-o", name]) == 0
    assert Path(name).read_bytes().startswith(start)
    assert names() == sorted(["in.png", name])
    network, image, options = kernels[0]
    assert network == vanilla_cnn()
    assert options == {"channel_axis": -1}
    original = read_image("in.png").pixels
    np.testing.assert_allclose(image, original - original.mean(), atol=1e-4)


def test_affinity_options(here: Path, kernels: list) -> None:
    save("gray.png", (12, 17))
    options = "--kernel-size 7 --depth 2 --padding circular --kernel nngp"
    assert main(["affinity", "gray.png", "--at", "0,5", "-o", "a.png", *options.split()]) == 0
    network, image, given = kernels[0]
    assert network == vanilla_cnn(2, 7, padding="circular")
    assert image.shape == (12, 17)
    assert given == {"channel_axis": None, "kernel": "nngp"}


@pytest.mark.parametrize("at", ["12,0", "0,17", "99,99"])
def test_affinity_outside_the_picture_exits_2(
    here: Path, kernels: list, capsys: pytest.CaptureFixture[str], at: str
) -> None:
    assert main(["affinity", "in.png", "--at", at, "-o", "a.png"]) == 2
    message = f"argument --at: must lie within the picture's 12 rows and 17 columns, counted from 0, got {at}"
    assert message in capsys.readouterr().err
    assert kernels == []
    assert names() == ["in.png"]


def test_affinity_overwrites_only_with_force(here: Path, kernels: list) -> None:
    Path("a.png").write_bytes(b"mine")
    assert main(["affinity", "in.png", "--at", "3,4", "-o", "a.png"]) == 2
    assert Path("a.png").read_bytes() == b"mine"
    assert kernels == []
    assert main(["affinity", "in.png", "--at", "3,4", "-o", "a.png", "--force"]) == 0
    assert Path("a.png").read_bytes().startswith(b"\x89PNG")


def test_affinity_without_matplotlib(
    here: Path, kernels: list, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # importing it raises ImportError
    assert main(["affinity", "in.png", "--at", "3,4", "-o", "a.png"]) == 1
    assert "pip install ntkfast[plot]" in capsys.readouterr().err
    assert kernels == []


@pytest.mark.parametrize("signed", [False, True])
def test_figure_shows_the_weights_relative_to_the_pixel(signed: bool) -> None:
    weights = np.random.default_rng(0).uniform(-2 if signed else 0, 6, (8, 10))
    weights[1, 9] = 4.0
    figure = figures.affinity_figure(np.arange(80.0).reshape(8, 10), weights, 1, 9, patch=5, title="a network")
    assert "row 1, column 9" in figure.get_suptitle()
    assert "a network" in figure.get_suptitle()
    _, overlay = figure.axes[1].images
    np.testing.assert_allclose(overlay.get_array(), weights / 4)
    largest = np.abs(weights).max() / 4
    np.testing.assert_allclose(overlay.get_clim(), (-largest if signed else 0, largest))
    assert overlay.cmap(overlay.norm(0.0))[3] < 0.02  # the picture is seen where the weight is 0
    for axes in figure.axes[:2]:
        assert [line.get_xydata().tolist() for line in axes.lines] == [[[9, 1]]]
        assert axes.get_xlim() == (-0.5, 9.5)
        assert axes.get_ylim() == (7.5, -0.5)


@pytest.mark.parametrize(
    ("weights", "at", "message"),
    [
        (np.ones((8, 9)), (2, 3), r"weights must have the picture's shape \(8, 10\), got \(8, 9\)"),
        (np.ones((8, 10)), (8, 3), r"must lie within 8 rows and 10 columns, got \(8, 3\)"),
        (np.ones((8, 10)), (-1, 3), r"must lie within 8 rows"),
        (np.zeros((8, 10)), (2, 3), "positive at the pixel itself, got 0.0"),
        (np.full((8, 10), np.nan), (2, 3), "must be finite"),
    ],
)
def test_figure_refuses(weights: np.ndarray, at: tuple[int, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        figures.affinity_figure(np.zeros((8, 10, 3)), weights, *at)


# --------------------------------------------------------------------------------------- the real thing, from a shell


def shell(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ntkfast", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)


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


def test_heavy_modules_are_not_imported_by_the_parser() -> None:
    code = (
        "import sys; from ntkfast.app.cli import main; main(['denoise', '--help']); "
        "heavy = {'scipy', 'skimage', 'imagecodecs', 'tifffile', 'tqdm', 'matplotlib'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def noisy_picture(name: str, size: int, sigma: float = 25.0) -> np.ndarray:
    """Write a noisy 8 bit picture of coarse stripes and return it without noise."""
    y, x = np.mgrid[:size, :size]
    clean = 127 + 70 * np.sign(np.sin(x / 4.0) + np.cos((x + 2 * y) / 9.0))
    noisy = clean + np.random.default_rng(0).normal(0, sigma, clean.shape)
    write_image(ImageFile(noisy.astype(np.float32), None, np.dtype(np.uint8), Path(name)), name)
    return clean


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


def test_ctrl_c_while_the_command_line_is_imported() -> None:
    code = """
        import sys

        class Interrupt:
            def find_spec(self, name, *rest):
                if name == "numpy":
                    raise KeyboardInterrupt

        sys.meta_path.insert(0, Interrupt())
        from ntkfast.app.entry import main
        sys.exit(main())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "ntkfast: interrupted\n")


def test_affinity_of_the_real_kernel(here: Path) -> None:
    done = shell("affinity", "in.png", "--at", "3,11", "-o", "a.png", "--depth", "2", "--kernel-size", "3")
    assert (done.returncode, done.stderr) == (0, "")
    assert read_image("a.png").pixels.shape[2] == 3


def test_info_of_the_real_engine() -> None:
    done = shell("info", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    expected = {
        "version",
        "python",
        "numpy",
        "cores",
        "threads",
        "threads_by",
        "isa_compiled",
        "isa_supported",
        "isa_active",
    }
    assert expected <= set(facts)
    assert facts["isa_active"] in set(facts["isa_compiled"]) & set(facts["isa_supported"])


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")
def test_reader_that_leaves(here: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-m", "ntkfast", "info"], stdout=write_end, stderr=subprocess.PIPE, timeout=60, check=False
    )
    os.close(write_end)
    assert (done.returncode, done.stderr) == (1, b"")
