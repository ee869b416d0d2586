"""These test ``ntkfast denoise``: the pictures and options that reach the denoiser, what is written and said.

A quick function stands in the place of the denoiser.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

import ntkfast
from command_line import FakeDenoiser, names, save
from ntkfast.app.cli import main
from ntkfast.app.image_files import read_image


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
