"""The benchmark of quality is tested on one tiny picture, no download: pictures, arithmetic of tables, resumption."""

import importlib.util
import json
import math
from pathlib import Path

import numpy as np
import pytest
from bench import machine
from bench.quality import __main__ as command
from bench.quality import methods, pictures, scaling, tables
from skimage.metrics import peak_signal_noise_ratio
from skimage.restoration import denoise_nl_means

import ntkfast

NAME, SIZE, SIGMA = "astronaut", 48, 25.0
RUN = ["--methods", "noisy", "nlm", "ours", "--pictures", NAME, "--size", str(SIZE), "--sigmas", "25"]


def result(picture, method, psnr, *, seconds=1.0, shape=(512, 512, 3), sigma=25.0):
    return {
        "picture": picture,
        "shape": list(shape),
        "crc32": 1,
        "sigma": sigma,
        "method": method,
        "psnr": psnr,
        "ssim": psnr / 100,
        "seconds": None if method == "noisy" else seconds,
        "peak_bytes_above_import": None if method == "noisy" else 5_000_000,
    }


def complete(ours=(31.0, 29.5), ours_seconds=(14.0, 3.0)):
    """Return two pictures, four methods, figures that are exact in decimals."""
    found = []
    for n, picture in enumerate(("astronaut", "chelsea")):
        shape = (512, 512, 3) if n == 0 else (300, 451, 3)
        for method, psnr, seconds in (
            ("noisy", 20.0 + n, 0.0),
            ("nlm", 30.0 - n, 0.5),
            ("bm3d", 32.0 - n, 20.0),
            ("ours", ours[n], ours_seconds[n]),
        ):
            found.append(result(picture, method, psnr, seconds=seconds, shape=shape))
    return found


def grid_of(results, names=("noisy", "nlm", "bm3d", "ours")):
    return tables.grids(results, ["astronaut", "chelsea"], names)


@pytest.fixture(scope="module")
def one_run(tmp_path_factory):
    """Run the command on one crop, with its file."""
    path = tmp_path_factory.mktemp("quality") / "sub" / "quality.json"
    assert command.main([*RUN, "--json", str(path)]) == 0
    return path


def test_figures_are_those_of_the_methods_called_directly(one_run):
    kept = {r["method"]: r for r in json.loads(one_run.read_text())["results"]}
    clean = pictures.TEST[NAME].crop(SIZE)
    noisy = pictures.add_noise(clean, NAME, SIGMA)
    images = {
        "noisy": noisy,
        "nlm": denoise_nl_means(
            noisy, patch_size=5, patch_distance=7, h=15.0, sigma=25.0, fast_mode=True, channel_axis=-1
        ),
        "ours": ntkfast.denoise_ntk(noisy, channel_axis=-1),
    }
    assert kept.keys() == images.keys()
    for method, image in images.items():
        want = peak_signal_noise_ratio(clean.astype(float), image.astype(float), data_range=255)
        assert kept[method]["psnr"] == pytest.approx(want, abs=1e-4), method
        assert 0 < kept[method]["ssim"] < 1
    assert kept["noisy"]["seconds"] is None
    assert all(kept[method]["seconds"] > 0 for method in ("nlm", "ours"))


def test_the_example_has_the_same_non_local_means():
    path = Path(__file__).resolve().parent.parent / "examples" / "denoise_photo.py"
    spec = importlib.util.spec_from_file_location("denoise_photo", path)
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    noisy = pictures.add_noise(pictures.TEST[NAME].crop(SIZE), NAME, SIGMA)
    np.testing.assert_array_equal(example.non_local_means(noisy, SIGMA), methods.non_local_means(noisy, SIGMA))


def test_nothing_is_run_twice(one_run, monkeypatch, capsys):
    ran = []

    def run(method, noisy, clean, sigma, options):
        ran.append((method, sigma))
        return methods.Outcome(clean + 1, seconds=2.0, peak_bytes_above_import=3)

    monkeypatch.setattr(methods, "run", run)
    before = one_run.read_text()
    assert command.main([*RUN, "--json", str(one_run)]) == 0
    assert ran == []
    assert one_run.read_text() == before
    first = capsys.readouterr().out

    # Another sigma and the method named by --again are run, and the rest of the file stays.
    assert command.main([*RUN[:-1], "25", "50", "--again", "ours", "--json", str(one_run)]) == 0
    assert ran == [("ours", 25.0), ("noisy", 50.0), ("nlm", 50.0), ("ours", 50.0)]
    assert capsys.readouterr().out != first
    kept = {(r["method"], r["sigma"]): r for r in json.loads(one_run.read_text())["results"]}
    assert len(kept) == 6
    assert kept["ours", 25.0]["psnr"] == pytest.approx(20 * math.log10(255))  # an error of 1 everywhere
    assert kept["nlm", 25.0] == next(r for r in json.loads(before)["results"] if r["method"] == "nlm")

    # Other pixels of the same name are another picture.
    ran.clear()
    assert command.main([*RUN[:-3], "40", "--sigmas", "25", "--json", str(one_run)]) == 0
    assert ran == [("noisy", 25.0), ("nlm", 25.0), ("ours", 25.0)]
    one_run.write_text(before)


def test_what_was_measured_before_a_stop_is_kept(tmp_path, monkeypatch):
    def run(method, noisy, clean, sigma, options):
        if method == "nlm":
            raise KeyboardInterrupt
        return methods.Outcome(noisy)

    monkeypatch.setattr(methods, "run", run)
    path = tmp_path / "quality.json"
    with pytest.raises(KeyboardInterrupt):
        command.main([*RUN, "--json", str(path)])
    assert [r["method"] for r in json.loads(path.read_text())["results"]] == ["noisy"]


def test_table():
    (grid,) = grid_of(complete()).values()
    cells = [line.split("  ") for line in tables.lines(25.0, grid)]
    quality = [[cell.strip() for cell in line if cell.strip()] for line in cells[1:5]]
    assert quality[0] == [
        *("noisy dB", "nlm dB", "bm3d dB", "ours dB", "ours - nlm", "ours - bm3d"),
        *("noisy SSIM", "nlm SSIM", "bm3d SSIM", "ours SSIM"),
    ]
    assert quality[1][:7] == ["astronaut", "20.00", "30.00", "32.00", "31.00", "+1.00", "-1.00"]
    assert quality[2][:7] == ["chelsea", "21.00", "29.00", "31.00", "29.50", "+0.50", "-1.50"]
    assert quality[3][:7] == ["mean", "20.50", "29.50", "31.50", "30.25", "+0.75", "-1.25"]
    cost = [[cell.strip() for cell in line if cell.strip()] for line in cells[6:10]]
    assert cost[0] == ["nlm s", "bm3d s", "ours s", "nlm MB", "bm3d MB", "ours MB"]
    assert cost[3] == ["mean", "0.50", "20.00", "8.50", "5", "5", "5"]


def test_means_are_over_the_pictures_that_all_methods_have():
    results = [r for r in complete() if (r["picture"], r["method"]) != ("chelsea", "bm3d")]
    (grid,) = grid_of(results).values()
    assert grid.mean("ours", "psnr") == 31.0
    assert any("1 without all methods" in line for line in tables.lines(25.0, grid))
    assert any(line.startswith("chelsea") for line in tables.lines(25.0, grid))


@pytest.mark.parametrize(
    ("results", "want"),
    [
        (complete(), ["met (+0.75 dB)", "met (slowest 14.0 s)", "met (2.35 times"]),
        (complete(ours=(30.25, 29.5)), ["not met (+0.38 dB)", "met", "met"]),
        # The second picture is not 512 x 512: its seconds count beside CBM3D's alone.
        (complete(ours_seconds=(15.5, 90.0)), ["met", "not met (slowest 15.5 s)", "not met (0.38 times"]),
        ([r for r in complete() if r["method"] != "ours"], ["not measured"] * 3),
        ([r for r in complete() if r["method"] not in ("bm3d", "nlm")], ["not measured", "met", "not measured"]),
    ],
)
def test_targets(results, want):
    names = [name for name in ("noisy", "nlm", "bm3d", "ours") if any(r["method"] == name for r in results)]
    found = [line.rpartition(": ")[2] for line in tables.targets(grid_of(results, names))]
    assert len(found) == len(want)
    assert all(line.startswith(start) for line, start in zip(found, want, strict=True)), found


def test_results_are_kept_a_line_each():
    records = [{"a": 1.23456789, "b": {"c": [1, 2], "d": None}}, {"name": "x" * 500, "e": (2.0, math.inf)}]
    text = machine.as_text({"machine": {"cores": 2}, "results": records, "none": []})
    assert json.loads(text) == {
        "machine": {"cores": 2},
        "results": [{"a": 1.234568, "b": {"c": [1, 2], "d": None}}, {"name": "x" * 500, "e": [2.0, math.inf]}],
        "none": [],
    }
    lines = text.splitlines()
    assert '    {"a": 1.234568, "b": {"c": [1, 2], "d": null}},' in lines
    assert '      "e": [2.0, Infinity]' in lines  # a result too long for a line
    assert '    "cores": 2' in lines


def test_noise_is_the_same_at_every_call_and_differs_by_name_and_sigma():
    clean = np.full((64, 64, 3), 250, dtype=np.uint8)
    noise = pictures.add_noise(clean, "a", 25.0) - 250.0
    assert noise.dtype == np.float32
    # The bars are five standard errors: sigma / sqrt(n), sigma / sqrt(2 n).
    assert abs(noise.mean()) < 5 * 25 / math.sqrt(noise.size)
    assert abs(noise.std() - 25) < 5 * 25 / math.sqrt(2 * noise.size)
    assert noise.max() > 5  # above 255: not clipped
    np.testing.assert_array_equal(pictures.add_noise(clean, "a", 25) - 250.0, noise)
    for other in (pictures.add_noise(clean, "b", 25.0), pictures.add_noise(clean, "a", 10.0)):
        assert abs(np.corrcoef((other - 250.0).ravel(), noise.ravel())[0, 1]) < 5 / math.sqrt(noise.size)


def test_the_tuning_set_shares_no_pixel_with_the_test_set():
    for name, picture in pictures.TUNING.items():
        for other_name, other in pictures.TEST.items():
            if picture.source != other.source:
                continue
            (row, col, height, width), (y, x, h, w) = picture.region, other.region
            apart = row + height <= y or y + h <= row or col + width <= x or x + w <= col
            assert apart, (name, other_name)


def test_crops():
    whole = np.arange(30 * 40 * 3, dtype=np.uint32).reshape(30, 40, 3).astype(np.uint8)
    np.testing.assert_array_equal(pictures.Picture(lambda: whole, "", "").crop(10), whole[10:20, 15:25])
    np.testing.assert_array_equal(pictures.Picture(lambda: whole, "", "").crop(31), whole)
    np.testing.assert_array_equal(pictures.Picture(lambda: whole, "", "", (2, 3, 20, 12)).crop(10), whole[7:17, 4:14])


def test_fit_of_the_scaling():
    offset, slope, error = scaling.fit([1.0, 4.0, 16.0], [5.0, 11.0, 35.0])
    assert (offset, slope) == pytest.approx((3.0, 2.0))
    assert error == pytest.approx(0, abs=1e-12)
    assert scaling.fit([1.0, 4.0, 16.0], [1.0, 16.0, 256.0])[2] > 0.5  # a square is not linear


def test_mirrored_picture():
    small, large = scaling.mirrored(512), scaling.mirrored(1024)
    np.testing.assert_array_equal(large[:512, :512], small)
    np.testing.assert_array_equal(large[512:, :512], small[::-1])


def test_deep_image_prior_learns_the_picture():
    prior_module = pytest.importorskip("bench.quality.deep_image_prior", reason="torch is not installed")
    noisy = pictures.add_noise(pictures.TEST[NAME].crop(20), NAME, 25.0)  # 20 is no multiple of 8
    prior = prior_module.Prior(noisy, levels=3, channels=8, skip_channels=2)
    losses = [prior.step() for _ in range(25)]
    assert losses[-1] < 0.5 * losses[0]
    assert prior.picture().shape == noisy.shape
    again = prior_module.Prior(noisy, levels=3, channels=8, skip_channels=2)
    assert again.step() == pytest.approx(losses[0], rel=1e-5)


@pytest.mark.parametrize("option", ["--sigmas 0", "--sigmas nan", "--size 0", "--threads 0", "--methods magic"])
def test_wrong_options_are_named(option, capsys):
    with pytest.raises(SystemExit):
        command.main(option.split())
    assert option.split()[0] in capsys.readouterr().err


def test_the_prior_is_run_on_smaller_crops_unless_told():
    assert command.arguments([]).size == pictures.SIZE
    assert command.arguments(["--methods", "dip", "ours"]).size == 256
    assert command.arguments(["--methods", "dip", "ours"]).methods == ["ours", "dip"]
    assert command.arguments(["--methods", "dip", "--size", "64"]).size == 64
