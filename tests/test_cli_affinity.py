"""These test ``ntkfast affinity`` and the figure that it draws.

A quick class stands in the place of the kernel, except in the last test.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from command_line import names, save, shell
from ntkfast.app import figures
from ntkfast.app.cli import main
from ntkfast.app.image_files import read_image
from ntkfast.network import vanilla_cnn


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


def test_affinity_of_the_real_kernel(here: Path) -> None:
    done = shell("affinity", "in.png", "--at", "3,11", "-o", "a.png", "--depth", "2", "--kernel-size", "3")
    assert (done.returncode, done.stderr) == (0, "")
    assert read_image("a.png").pixels.shape[2] == 3
