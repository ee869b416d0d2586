"""These test the page about a denoised picture: what it shows, and that it needs nothing from outside."""

from __future__ import annotations

import base64
import re
import sys
from html.parser import HTMLParser
from types import SimpleNamespace
from typing import Any

import imagecodecs
import numpy as np
import pytest

import ntkfast as nf
from images import IMAGES
from ntkfast.app import figures, report
from ntkfast.network import vanilla_cnn

# ------------------------------------------------------------------------------------------------------------- helpers


def info(**changes: Any) -> Any:
    """Say what a denoiser could have done."""
    said = {
        "method": nf.Tiles(vanilla_cnn(), 16, 8), "noise": nf.NoiseModel(24.83, estimated=True), "level": 24.83,
        "tiles": 4096, "steps": (37, 210), "learning_rate": (0.0123456, 2e-7), "stopping": "calibrated", "passes": 2,
        "seconds": 3.21,
    }  # fmt: skip
    return SimpleNamespace(**(said | changes))


def pictures(height: int = 40, width: int = 56, channels: int | None = 3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a noisy picture, a result and the clean picture, float32, 0 to 255."""
    clean = 255 * IMAGES["natural"](height, width, channels or 1, 0)
    noise = 20 * IMAGES["noise"](height, width, channels or 1, 0)
    three = np.stack([np.rint(clean + noise), clean + 0.2 * noise, np.rint(clean)]).astype(np.float32)
    noisy, result, clean = three if channels else three[..., 0]
    return noisy, result, clean


class Page(HTMLParser):
    """This takes a page apart: its text, its pictures under their descriptions, and everything it refers to."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source, self.text, self.references = source, "", []
        self.images: list[tuple[str, np.ndarray]] = []
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.feed(source)
        self.close()
        assert self.open == []  # every tag is closed
        self.text = " ".join(self.text.split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag not in ("img", "meta"):
            self.open.append(tag)
        values = dict(attrs)
        self.references += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        if tag == "img":
            start = "data:image/png;base64,"
            assert values["src"].startswith(start)
            pixels = imagecodecs.png_decode(base64.b64decode(values["src"][len(start) :], validate=True))
            self.images.append((values["alt"], pixels))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data + " "

    def panels(self, name: str) -> list[np.ndarray]:
        return [pixels for description, pixels in self.images if description == name]


# ---------------------------------------------------------------------------------------------------------------- PSNR


def test_psnr() -> None:
    clean = np.array([[0.0, 100.0], [200.0, 50.0]])
    assert report.psnr(clean + 5, clean, 255) == pytest.approx(20 * np.log10(255 / 5))
    assert report.psnr(clean - 5, clean) == pytest.approx(20 * np.log10(200 / 5))
    assert report.psnr(clean, clean) == np.inf
    assert report.psnr(np.full((3, 3), 0.1), np.zeros((3, 3))) == pytest.approx(20)  # no range: a peak of 1


def test_path_runs_the_denoiser_at_multiples_of_the_steps() -> None:
    clean = IMAGES["noise"](6, 7, 1, 0)[..., 0]
    asked: list[list[int]] = []

    def run(steps: list[int]) -> np.ndarray:
        asked.append(steps)
        return clean + steps[0] / 100

    path = report.psnr_path(run, (12, 400), clean + 0.5, clean, peak=2.0)
    expected = [(2, 50), (3, 100), (6, 200), (12, 400), (24, 800), (48, 1600), (96, 3200)]
    assert [p.steps for p in path] == expected
    assert [p.factor for p in path] == [1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8]
    assert sorted(map(tuple, asked)) == [s for s in expected if s != (12, 400)]
    offsets = [0.5 if p.factor == 1 else p.steps[0] / 100 for p in path]  # that of the steps used is the result's own
    np.testing.assert_allclose([p.psnr for p in path], 20 * np.log10(2.0 / np.array(offsets)))


def test_path_runs_nothing_twice() -> None:
    asked: list[list[int]] = []

    def run(steps: list[int]) -> np.ndarray:
        asked.append(steps)
        return np.zeros((2, 2))

    path = report.psnr_path(run, (1, 1), np.zeros((2, 2)), np.eye(2))
    assert [(p.factor, p.steps) for p in path] == [(1, (1, 1)), (2, (2, 2)), (4, (4, 4)), (8, (8, 8))]
    assert len(asked) == 3
    assert report.psnr_path(run, (), np.zeros((2, 2)), np.eye(2)) == []
    assert len(asked) == 3


# -------------------------------------------------------------------------------------------------------------- pixels


def regions() -> np.ndarray:
    """Return a picture that is flat but for a step at column 60 and a checkerboard right of column 120."""
    picture = np.zeros((100, 180))
    picture[:, 60:] = 0.7
    y, x = np.mgrid[:100, 120:180]
    picture[:, 120:] = 0.5 + 0.4 * (-1.0) ** (y // 3 + x // 3)
    return picture


@pytest.mark.parametrize("scale", [1.0, 1000.0])
@pytest.mark.parametrize("channels", [None, 3])
def test_pixels_lie_where_their_names_say(scale: float, channels: int | None) -> None:
    picture = 5 + scale * regions()
    picture = picture if channels is None else np.repeat(picture[..., None], channels, axis=2)
    side = 16
    pixels = report.choose_pixels(picture, side)
    assert list(pixels) == ["edge", "texture", "flat"]
    assert pixels["edge"][1] in (59, 60)
    assert 120 + side // 2 <= pixels["texture"][1]
    row, col = pixels["flat"]
    assert np.ptp(picture[row - side // 2 : row + side // 2, col - side // 2 : col + side // 2]) == 0
    assert all(side // 2 <= r <= 100 - side // 2 and side // 2 <= c <= 180 - side // 2 for r, c in pixels.values())


def test_many_details_are_more_of_a_texture_than_one_strong_corner() -> None:
    picture = np.zeros((80, 160))
    picture[30:50, 30:50] = 1.0
    y, x = np.mgrid[:80, 100:150]
    picture[:, 100:150] = 0.15 * (-1.0) ** (y // 3 + x // 3)
    assert 100 <= report.choose_pixels(picture, 16)["texture"][1] < 150


def test_pixels_follow_the_picture_when_it_is_transposed() -> None:
    picture = IMAGES["natural"](64, 96, 1, 3)[..., 0]
    pixels = report.choose_pixels(picture, 16)
    turned = report.choose_pixels(picture.T, 16)
    assert turned == {region: (col, row) for region, (row, col) in pixels.items()}
    places = list(pixels.values())
    assert all(max(abs(a[0] - b[0]), abs(a[1] - b[1])) > 8 for a in places for b in places if a != b)


@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (3, 3), (4, 30), (16, 16), (17, 40)])
def test_pixels_of_small_pictures(shape: tuple[int, int]) -> None:
    random = report.choose_pixels(np.random.default_rng(0).standard_normal(shape), min(16, *shape))
    assert "flat" in random
    assert len(set(random.values())) == len(random)
    assert all(0 <= row < shape[0] and 0 <= col < shape[1] for row, col in random.values())
    assert list(report.choose_pixels(np.ones(shape), min(16, *shape))) == ["flat"]


# ---------------------------------------------------------------------------------------------------------------- page


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("channels", [None, 2, 3])
@pytest.mark.parametrize("known", [False, True], ids=["noisy alone", "clean known"])
def test_page_holds_all_it_shows(channels: int | None, known: bool) -> None:
    noisy, result, clean = pictures(channels=channels)
    path = [report.PathPoint(0.5, (18, 105), 20.5), report.PathPoint(1.0, (37, 210), 20.0)] if known else []
    page = Page(report.page(noisy, result, info(), clean=clean if known else None, peak=255.0, path=path))
    assert all(reference.startswith("data:image/png;base64,") for reference in page.references)
    assert not page.tags & {"script", "link", "iframe", "object", "embed", "base", "form"}
    outside = re.sub(r'src="data:[^"]*"', "", page.source)
    assert not re.search(r"https?:|//|url\(|@import", outside)
    assert page.source.startswith("<!DOCTYPE html>")
    names = ["noisy", "result", "clean", "left: result - clean", "removed: noisy - result"]
    for name in names:
        count = len(page.panels(name))
        assert count == (0 if not known and "clean" in name else 4), name  # the whole, and three enlarged parts
    assert len([name for name, _ in page.images if name.startswith("filter weights of the pixel at row")]) == 3
    assert len(page.panels("PSNR over the number of steps")) == known
    for heading in ("Pictures", "On an edge", "In a texture", "In a flat region", "What was done"):
        assert heading in page.text
    assert (" dB" in page.text) == known


@pytest.mark.usefixtures("undrawn")
def test_panels_show_the_pixels() -> None:
    noisy, result, clean = pictures()
    page = Page(report.page(noisy, result, info(), clean=clean, value_range=(0.0, 255.0)))
    whole, *parts = page.panels("noisy")
    np.testing.assert_array_equal(whole, np.clip(noisy, 0, 255))
    np.testing.assert_array_equal(page.panels("clean")[0], clean)
    np.testing.assert_array_equal(page.panels("result")[0], np.clip(np.rint(result), 0, 255))
    places = re.findall(r"Rows (\d+) to (\d+), columns (\d+) to (\d+)\.", page.text)
    assert len(places) == 3
    boxes = re.findall(r"left:([\d.]+)%;top:([\d.]+)%;width:([\d.]+)%;height:([\d.]+)%", page.source)
    for part, place, box in zip(parts, places, boxes, strict=True):
        top, bottom, left, right = map(int, place)
        np.testing.assert_array_equal(part, whole[top : bottom + 1, left : right + 1])
        corner = left / 56, top / 40, (right + 1 - left) / 56, (bottom + 1 - top) / 40
        np.testing.assert_allclose(np.array(box, float) / 100, corner, atol=1e-5)


@pytest.mark.usefixtures("undrawn")
def test_psnr_stands_below_the_pictures() -> None:
    noisy, result, clean = pictures()
    page = Page(report.page(noisy, result, info(), clean=clean, peak=255.0))
    assert f"noisy, {report.psnr(noisy, clean, 255):.2f} dB" in page.text
    assert f"result, {report.psnr(result, clean, 255):.2f} dB" in page.text
    assert "PSNR for a peak of 255," in page.text
    page = Page(report.page(noisy / 255, result / 255, info(), clean=clean / 255))
    assert f"PSNR for a peak of {np.ptp(clean) / 255:.4g}," in page.text


@pytest.mark.usefixtures("undrawn")
def test_differences_are_symmetric_and_their_scale_is_stated() -> None:
    result = np.full((32, 32), 100.0)
    difference = np.zeros((32, 32))
    difference[4:8, :16], difference[4:8, 16:] = 10.0, -10.0
    page = Page(report.page(result + difference, result, info(), value_range=(0.0, 255.0)))
    shown = page.panels("removed: noisy - result")[0].astype(int)
    limit = float(f"{3 * difference.std():.2g}")
    assert f"{-limit:g} {limit:g}" in page.text
    assert f"amplified {255 / (2 * limit):.2g} times" in page.text
    assert np.ptp(shown[12, 3]) <= 2  # white
    assert shown[12, 3].min() > 240
    more, less = shown[5, 3], shown[5, 20]
    assert more[0] > more[2] + 50  # red: removed where it is positive
    assert less[2] > less[0] + 50
    np.testing.assert_array_equal(shown[5, :16], np.tile(more, (16, 1)))


@pytest.mark.usefixtures("undrawn")
def test_of_large_pictures_every_nth_pixel_is_shown() -> None:
    noisy, result, _ = (np.tile(picture, (30, 1)) for picture in pictures(channels=None))  # 1200 x 56
    page = Page(report.page(noisy, result, info(), value_range=(0.0, 255.0)))
    np.testing.assert_array_equal(page.panels("noisy")[0], np.clip(noisy[::2, ::2], 0, 255))
    assert "one in 2 is shown" in page.text
    assert page.panels("noisy")[1].shape == (16, 16)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("network", [vanilla_cnn(2, 3), nf.unet(2)], ids=repr)
def test_weights_are_those_of_the_kernel(monkeypatch: pytest.MonkeyPatch, network: nf.Network) -> None:
    drawn: list[tuple[Any, ...]] = []
    original = figures.affinity_figure

    def spy(picture: np.ndarray, weights: np.ndarray, row: int, col: int, **options: Any) -> Any:
        drawn.append((picture, weights, row, col, options["origin"], options["patch"]))
        return original(picture, weights, row, col, **options)

    monkeypatch.setattr(figures, "affinity_figure", spy)
    noisy, result, _ = pictures(50, 150)
    page = Page(report.page(noisy, result, info(method=nf.Tiles(network))))
    pixels = report.choose_pixels(result, 16)
    m = network.multiple
    assert len(drawn) == 3
    for (picture, weights, row, col, origin, patch), at in zip(drawn, pixels.values(), strict=True):
        assert (origin[0] + row, origin[1] + col) == at
        assert picture.shape == (50 // m * m, 128, 3)
        np.testing.assert_array_equal(picture, result[origin[0] :][: 50 // m * m, origin[1] :][:, :128])
        K = nf.NTK(network, picture - picture.mean(axis=(0, 1)), channel_axis=-1)
        np.testing.assert_allclose(weights, K.affinity(row, col), rtol=1e-4, atol=1e-4 * weights.max())
        assert patch == network.receptive_field
        assert f"filter weights of the pixel at row {at[0]}, column {at[1]}" in [name for name, _ in page.images]


@pytest.mark.usefixtures("undrawn")
def test_where_there_are_no_weights_it_says_why() -> None:
    noisy, result, _ = pictures(3, 3, None)
    page = Page(report.page(noisy, result, info(method=nf.Tiles(nf.unet(2)))))
    assert "No filter weights: the network needs sides that are multiples of 4." in page.text
    page = Page(report.page(np.full((20, 20), 7.0), np.full((20, 20), 7.0), info()))
    assert "No filter weights: around the pixel at row 8, column 8 the picture is its mean." in page.text


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (5, 4)])
def test_tiny_pictures(shape: tuple[int, int]) -> None:
    noisy = np.random.default_rng(0).standard_normal(shape)
    Page(report.page(noisy, noisy / 2, info(), clean=np.zeros(shape)))


@pytest.mark.usefixtures("undrawn")
def test_what_was_done_is_told() -> None:
    noisy, result, _ = pictures()
    changes = {"pass_seconds": 1.23456}  # a field that a denoiser may have beside the known ones
    facts = {"command": 'ntkfast denoise "<in>" out.png'}
    page = Page(report.page(noisy, result, info(**changes), title="<b>&amp;", facts=facts))
    assert page.text.count("<b>&amp;") == 2  # title and heading, as text
    for line in (
        "picture 40 rows, 56 columns, 3 channels",
        "noise level 24.83 (estimated)",
        f"network {vanilla_cnn()!r}",
        "passes 2, each",
        "method 4096 tiles of 16 x 16 pixels, overlapping by 8",
        "steps 37, then 210",
        "step size 0.01235, then 2e-07",
        "seconds 3.2, and",
        "stopping rule calibrated",
        "pass seconds 1.235",
        f"version ntkfast {nf.__version__}",
        'command ntkfast denoise "<in>" out.png',
    ):
        assert line in page.text
    page = Page(report.page(noisy, result, info(noise=nf.NoiseModel(0), level=0.0, steps=(), learning_rate=())))
    assert "noise level 0 (given)" in page.text
    assert "steps none" in page.text
    page = Page(report.page(noisy, result, info(), facts={"noise level": "2 with gain 3"}))
    assert page.text.count("noise level") == 1
    assert "noise level 2 with gain 3 network" in page.text


@pytest.mark.usefixtures("undrawn")
def test_tiles_are_told_of_where_there_are_some() -> None:
    noisy, result, _ = pictures()
    for method, tiles, text in (
        (nf.Tiles(size=16, overlap=9), 1, "1 tile of 16 x 16 pixels, overlapping by 9"),
        (nf.WholeImage(), 1, "whole image, exact kernel"),
        (nf.WholeImage(landmarks=9), 1, "whole image, 9 landmarks"),
    ):
        page = Page(report.page(noisy, result, info(method=method, tiles=tiles, stopping="sure")))
        assert f"method {text}" in page.text
        assert "stopping rule sure" in page.text
        own = 3 if isinstance(method, nf.Tiles) else 0
        assert page.text.count("The denoiser's own kernels are those of its tiles") == own


@pytest.mark.usefixtures("undrawn")
def test_path_is_told() -> None:
    noisy, result, clean = pictures()
    points = [report.PathPoint(f, (2,), level) for f, level in ((0.5, 21.25), (1, 21.0), (2, 20.0))]
    page = Page(report.page(noisy, result, info(), clean=clean, path=points, path_seconds=12.34))
    assert "2 more in 12.3 s. The best point, 1/2 times the steps, is 0.25 dB better." in page.text
    page = Page(report.page(noisy, result, info(), clean=clean, path=points[1:], path_seconds=12.34))
    assert "1 more in 12.3 s. No other point is better." in page.text
    perfect = [report.PathPoint(f, (2,), float("inf")) for f in (0.5, 1.0)]
    page = Page(report.page(noisy, result, info(), clean=clean, path=perfect, path_seconds=1.0))
    assert "No other point is better." in page.text


def test_path_of_a_real_denoiser() -> None:
    clean = 255 * IMAGES["natural"](32, 32, 3, 0)
    noisy = clean + 25 * IMAGES["noise"](32, 32, 3, 0)
    result, done = nf.denoise_ntk(noisy, 25, channel_axis=-1, return_info=True)
    path = report.psnr_path(
        lambda steps: nf.denoise_ntk(noisy, channel_axis=-1, method=nf.Tiles(steps=steps)),
        done.steps,
        result,
        clean,
        255,
    )
    levels = [p.psnr for p in path]
    assert levels[3] > report.psnr(noisy, clean, 255) + 3
    assert max(levels) > max(levels[0], levels[-1]) + 1  # both too few and too many steps are worse
    page = Page(report.page(noisy, result, done, clean=clean, peak=255.0, path=path))
    assert f"steps {done.steps[0]}, then {done.steps[1]}" in page.text


@pytest.mark.parametrize("name", ["result", "clean"])
def test_refuses_other_shapes(name: str) -> None:
    noisy, result, clean = pictures()
    arguments = {"result": result, "clean": clean, name: result[:-1]}
    with pytest.raises(ValueError, match=rf"{name} must have the shape of noisy \(40, 56, 3\), got \(39, 56, 3\)"):
        report.page(noisy, info=info(), **arguments)


def test_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)  # importing it raises ImportError
    noisy, result, _ = pictures()
    with pytest.raises(ImportError, match=r"pip install ntkfast\[plot\]"):
        report.page(noisy, result, info())


# ------------------------------------------------------------------------------------------------------- path's figure


def test_figure_of_the_path() -> None:
    points = [report.PathPoint(f, (8 * int(8 * f), 3), level) for f, level in ((0.125, 21.0), (1, 25.0), (8, 22.0))]
    (axes,) = report._path_figure(points, 20.0).axes
    result, used, noisy = axes.lines
    np.testing.assert_array_equal(result.get_xydata(), [(0.125, 21), (1, 25), (8, 22)])
    np.testing.assert_array_equal(used.get_xydata(), [(1, 25)])
    assert set(noisy.get_ydata()) == {20.0}
    assert axes.get_ylim()[0] < 20.0
    assert [label.get_text() for label in axes.get_xticklabels()] == ["1/8\n8\n+ 3", "1\n64\n+ 3", "8\n512\n+ 3"]


def test_figure_of_a_crop_counts_from_the_whole_picture() -> None:
    weights = np.random.default_rng(0).uniform(0, 1, (8, 10))
    picture = np.arange(80.0).reshape(8, 10)
    figure = figures.affinity_figure(picture, weights, 2, 9, patch=3, origin=(100, 30))
    assert "row 102, column 39" in figure.get_suptitle()
    for axes in figure.axes[:2]:
        assert [line.get_xydata().tolist() for line in axes.lines] == [[[39, 102]]]
        assert axes.get_xlim() == (29.5, 39.5)
        assert axes.get_ylim() == (107.5, 99.5)
        assert all(tuple(image.get_extent()) == (29.5, 39.5, 107.5, 99.5) for image in axes.images)
        assert [patch.get_xy() for patch in axes.patches] == [(37.5, 100.5)]
    with pytest.raises(ValueError, match=r"must lie within 8 rows and 10 columns, got \(8, 3\)"):
        figures.affinity_figure(picture, weights, 8, 3, origin=(100, 30))
