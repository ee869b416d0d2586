"""The choice of the denoiser's constants is tested on parts of one picture, without download."""

import ast
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bench.quality import pictures
from skimage.metrics import peak_signal_noise_ratio
from threadpoolctl import threadpool_limits
from tools.tuning import choices, cost, oracle, stopping

import ntkfast
from cases import OPERATORS
from ntkfast.restoration.stopping import Crops
from ntkfast.restoration.tile_filter import TileFilter

NAME, SIGMA = "astronaut", 25.0
ROOT = Path(__file__).parents[1]


def assigned(file):
    """Return the names that a file of the package gives values to at its top."""
    tree = ast.parse((ROOT / "python" / "ntkfast" / file).read_text(encoding="utf-8"))
    targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    return {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}


def test_the_constants_that_the_readme_names_are_where_it_says():
    readme = (ROOT / "tools" / "tuning" / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"\| `python -m tools\.tuning\.(\w+)[^`]*` \| ([^|]*) \|", readme)
    named = set()
    for module, chooses in rows:
        assert (ROOT / "tools" / "tuning" / f"{module}.py").exists()
        for names, file in re.findall(r"((?:`[A-Z_]+`(?:, | and )?)+) of `([^`]*\.py)`", chooses):
            constants = set(re.findall("`([^`]*)`", names))
            assert constants <= assigned(file), file
            named |= constants
        assert set(re.findall("`([A-Z_]+)`", chooses)) <= named  # each has its file
    assert len(rows) == 8
    assert {"LANES", "KAPPA", "POWER", "SIZE", "PASSES", "EIGENVECTORS_FROM"} <= named


def test_cost_of_tiles(tmp_path, capsys):
    path = tmp_path / "cost.json"
    assert cost.main(["--tiles", "6", "8", "12", "--channels", "1", "2", "--side", "24", "--json", str(path)]) == 0
    results = json.loads(path.read_text())["results"]
    assert [(r["size"], r["channels"]) for r in results] == [(s, c) for s in (6, 8, 12) for c in (1, 2)]
    assert all(0 < r["kernel_seconds"] <= r["predicted"] and r["seconds"] > 0 and r["bytes"] > 0 for r in results)
    assert [r["fitted"] for r in results] == [False, False, True, True, False, False]
    # The operations of 64 pixels, one hidden layer, 3 products of 2 channels are d C (p d + 2 C p (p + 1) + p C).
    assert cost.operations(8, 2, 3.0) == (64 * 65 / 2, 64 * 2 * (3 * 64 + 2 * 2 * 3 * 4 + 3 * 2))
    assert "8 x 8 x 2" in capsys.readouterr().out


def small_trial(height, width, **setting):
    """Return part of the astronaut with tiles of 8."""
    small = replace(oracle.DEFAULT, size=8, overlap=4, **setting)
    return oracle.Trial(NAME, pictures.TEST[NAME].crop(64)[:height, :width], SIGMA, small)


def centred_tiles(trial, starts):
    """Return tiles 8 x 8 of the guide of pass 1, less their means; they begin in row 0 and the columns given."""
    tiles = [trial.pixels[0, :8, x : x + 8] for x in starts]
    return [tile - tile.mean(axis=(0, 1)) for tile in tiles]


@pytest.fixture(scope="module")
def trial():
    """Return a trial with the denoiser's defaults."""
    return oracle.Trial(NAME, pictures.TEST[NAME].crop(32), SIGMA)


def test_passes_of_given_times_are_the_denoiser(trial):
    denoised, info = ntkfast.denoise_ntk(
        trial.noisy, SIGMA, channel_axis=-1, return_info=True, compute=ntkfast.Compute(device="cpu")
    )
    times = [n * rate for n, rate in zip(info.steps, info.learning_rate, strict=True)]
    want = peak_signal_noise_ratio(trial.clean.astype(float), denoised.astype(float), data_range=255)
    assert oracle.after(trial, times) == pytest.approx(want, abs=1e-4)


def test_best_times(trial):
    first, second = oracle.passes(trial)
    assert first.best == first.psnr.max() == trial.psnr(first.image)
    # Pass 2 is guided by the best image of pass 1.
    n = int(second.psnr.argmax())
    assert oracle.after(trial, [first.times[first.psnr.argmax()], second.times[n]]) == pytest.approx(
        second.best, abs=0.01
    )
    assert oracle.best(trial) >= second.best  # other guides are tried too


@pytest.mark.parametrize(("kind", "kernel"), [(TileFilter, "ntk"), (choices.NNGP, "nngp")])
def test_eigenvalues_of_the_tiles(kind, kernel):
    trial = small_trial(8, 12)
    spectra = oracle.Spectra(trial.filter(trial.pixels, kind=kind))
    network = oracle.DEFAULT.network
    for values, tile in zip(spectra.values, centred_tiles(trial, (0, 4)), strict=True):
        theta = OPERATORS[kernel](network, tile, dtype="float64", channel_axis=-1).dense()
        np.testing.assert_allclose(values, np.linalg.eigvalsh(theta), atol=1e-5 * values.max())


def test_filters_of_the_eigenvalues_are_those_of_the_denoiser():
    trial = small_trial(12, 12)
    run = trial.filter(trial.pixels)
    want, found = oracle.tiles_after(run, [3, 40]), oracle.Spectra(run).after([3, 40])
    assert np.abs(found - want).max() < 1e-3 * np.abs(want).max()  # the tolerance of the denoiser's Lanczos
    blended = run.path([3, 40], oracle.ignore)
    np.testing.assert_allclose([oracle.blend(run._tiling, z) for z in want], blended, rtol=1e-12)


def test_divergence_with_theta_held_fixed():
    trial = small_trial(8, 8)
    steps = [3, 40]
    run = trial.filter(trial.pixels)
    divergence = oracle.Spectra(run).divergence(steps)
    for y, x, channel in [(0, 0, 0), (3, 5, 0), (3, 5, 1), (7, 2, 2)]:
        unit = np.zeros_like(trial.pixels)
        unit[0, y, x, channel] = 1
        moved = oracle.Spectra(trial.filter(trial.pixels, unit)).after(steps)  # linear in its target
        np.testing.assert_allclose(divergence[:, 0, y, x, channel], moved[:, 0, y, x, channel], rtol=1e-9)


def test_fit_of_the_calibrated_times():
    kappa, power = stopping.FIT_KAPPAS[300], stopping.FIT_POWERS[8]
    times = np.geomspace(1e-8, 1e2, 80)
    curves = []
    for sigma, ratio in [(10.0, 0.2), (25.0, 1.5), (50.0, 0.7)]:
        best = 3 * kappa * ratio**power / sigma**2
        crops = Crops(np.empty(0), np.empty(0), None, [], level=sigma, contrast=sigma / ratio, share=3.0)
        curves.append(stopping.Curve(times, 30 - np.log(times / best) ** 2, crops))
    assert stopping.fit(curves) == pytest.approx((kappa, power))
    assert curves[0].loss(kappa, power) == pytest.approx(0, abs=1e-3)
    assert curves[0].loss(math.e * kappa, power) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("rule", [*stopping.RISKS, "calibrated"])
def test_a_rule_for_each_tile_is_the_rule_where_there_is_one_tile(rule):
    trial = oracle.Trial(NAME, pictures.TEST[NAME].crop(16), SIGMA)
    found, want = stopping.CHOICES[f"{rule}, each tile"](trial), stopping.CHOICES[rule](trial)
    assert found == pytest.approx(want, abs=0.15)  # the rule's time may lie between two that are tried


@pytest.mark.parametrize("rule", stopping.RISKS)
def test_tiles_stop_by_themselves_on_pictures_of_any_size(rule, monkeypatch):
    monkeypatch.setattr("ntkfast.restoration.picture.RULE_CROPS", 1)
    trial = oracle.Trial(NAME, pictures.TEST[NAME].crop(64)[:49], SIGMA)
    assert trial.crops.pixels.shape != trial.pixels.shape  # the rule itself would look at a part
    with threadpool_limits(1, user_api="blas"):
        assert stopping.CHOICES[f"{rule}, each tile"](trial) > trial.psnr(trial.pixels) + 3


def test_losses_of_the_stopping_rules(tmp_path, capsys, monkeypatch):
    path = tmp_path / "stopping.json"
    options = ["--pictures", NAME, "--size", "24", "--sigmas", "25", "--json", str(path)]
    assert stopping.main(options) == 0
    assert capsys.readouterr().out.count("\n") == 6  # head, row, mean of sigma, seconds, mean, worst
    (row,) = json.loads(path.read_text())["results"]["losses"]["rows"]
    assert row["psnr"].keys() == stopping.CHOICES.keys()
    trial = oracle.Trial(NAME, pictures.TEST[NAME].crop(24), SIGMA)
    denoised = ntkfast.denoise_ntk(
        trial.noisy,
        SIGMA,
        channel_axis=-1,
        method=ntkfast.Tiles(stopping="sure"),
        compute=ntkfast.Compute(device="cpu"),
    )
    want = peak_signal_noise_ratio(trial.clean.astype(float), denoised.astype(float), data_range=255)
    assert row["psnr"]["sure"] == pytest.approx(want, abs=1e-4)
    # Stein's formula without the divergence of Theta follows the noise, which is the known failure.
    assert row["psnr"]["Stein, Theta fixed"] < row["psnr"]["sure"] - 0.5
    assert row["psnr"]["recorrupted, each tile"] > row["psnr"]["Stein, Theta fixed, each tile"] + 0.5

    # Nothing that the file has is run again, and what it has not is added.
    monkeypatch.setattr(stopping, "CHOICES", {**stopping.CHOICES, "sure": None, "new": lambda trial: 7.0})
    assert stopping.main([*options, "--rules", "sure", "new"]) == 0
    (again,) = json.loads(path.read_text())["results"]["losses"]["rows"]
    assert again["psnr"] == {**row["psnr"], "new": 7.0}
    # Rows of other pictures stay.
    monkeypatch.setattr(oracle, "STEPS", [4, 30])
    assert stopping.main([*options, "--pictures", "coffee", "--rules", "new"]) == 0
    rows = json.loads(path.read_text())["results"]["losses"]["rows"]
    assert [r["picture"] for r in rows] == [NAME, "coffee"]
    assert rows[0] == again


def test_the_fit_stands_beside_the_losses(tmp_path, capsys, monkeypatch):
    path = tmp_path / "stopping.json"
    path.write_text(json.dumps({"results": {"losses": "kept"}}))
    monkeypatch.setattr(pictures, "tuning_set", lambda names, size: {"a": pictures.TEST[NAME].crop(size)})
    assert stopping.main(["--fit", "--pictures", NAME, "--size", "24", "--sigmas", "25", "--json", str(path)]) == 0
    kept = json.loads(path.read_text())["results"]
    assert kept["losses"] == "kept"
    rows = {(r["pass"], r["values"]): r for r in kept["fit"]["rows"]}
    assert rows.keys() == {(n, kind) for n in (0, 1, 2) for kind in ("fitted", "in use")}
    for n in (1, 2):  # one curve: its best time can be met
        assert rows[n, "fitted"]["tuning"]["worst"] == pytest.approx(0, abs=5e-3)


@pytest.mark.parametrize("kind", [choices.ByVariance, choices.WholeMean, choices.OnGrid, choices._windowed(np.square)])
def test_ways_to_blend_are_alike_for_one_tile(kind):
    trial = small_trial(8, 8)
    (want,) = trial.filter(trial.pixels).path([20], oracle.ignore)
    (found,) = trial.filter(trial.pixels, kind=kind).path([20], oracle.ignore)
    np.testing.assert_allclose(found, want, atol=1e-3 * np.abs(want).max())


def test_tiles_on_the_grid():
    trial = small_trial(24, 24)
    places = {kind: trial.filter(trial.pixels, kind=kind)._tiling.places for kind in (TileFilter, choices.OnGrid)}
    corners = [0, 4, 8, 12, 16]
    assert places[choices.OnGrid] == [(0, y, x) for y in corners for x in corners]
    assert len(places[TileFilter]) == 25
    assert places[TileFilter] != places[choices.OnGrid]


def test_blending_by_the_variance_left():
    trial = small_trial(8, 12)
    run = trial.filter(trial.pixels, kind=choices.ByVariance)
    (found,) = run.path([20], oracle.ignore)
    tiles = oracle.Spectra(run).after([20])[0]
    weights = []
    for tile in centred_tiles(trial, (0, 4)):
        values = np.linalg.eigvalsh(ntkfast.NTK(oracle.DEFAULT.network, tile, dtype="float64", channel_axis=-1).dense())
        weights.append(1 / (1 + ((1 - (1 - run.learning_rate * values) ** 20) ** 2).sum()))
    window = (
        np.sin(np.pi * (np.array([5, 1]) + 0.5) / 8) * weights
    )  # pixel (3, 5): column 5 of one tile, 1 of the other
    want = (window[0] * tiles[0, 3, 5, 0] + window[1] * tiles[1, 3, 1, 0]) / window.sum()
    assert found[0, 3, 5, 0] == pytest.approx(want, rel=1e-5)


def test_with_one_time_the_mean_and_the_differences_are_filtered_as_rgb():
    trial = small_trial(12, 12, chroma_time=1.0)
    rgb = trial.noisy[None].astype(float)
    (found,) = trial.filter(trial.pixels).path([20], oracle.ignore)
    (want,) = trial.filter(rgb, rgb).path([20], oracle.ignore)
    np.testing.assert_allclose(trial._picture.image(found), want, atol=1e-3 * np.abs(want).max())


def test_choices(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(pictures, "tuning_set", lambda names, size: {NAME: pictures.TEST[NAME].crop(size)})
    path = tmp_path / "choices.json"
    assert choices.main(["--size", "24", "--what", "guide", "--json", str(path)]) == 0
    assert choices.main(["--size", "24", "--what", "passes", "--json", str(path)]) == 0
    kept = json.loads(path.read_text())["results"]
    assert kept.keys() == {"guide", "passes"}
    one, two, three = oracle.passes(oracle.Trial(NAME, pictures.TEST[NAME].crop(24), SIGMA), 3)
    found = {r["choice"]: r["psnr"][NAME] for what in kept.values() for r in what["rows"]}
    assert found["first result"] == found["passes 2"] == pytest.approx(two.best)
    assert (found["passes 1"], found["passes 3"]) == pytest.approx((one.best, three.best))
    guides = [round(found[name], 6) for name in choices.CHOICES["guide"]]
    assert len(set(guides)) == len(guides)  # each does something


def test_every_choice_runs(monkeypatch):
    monkeypatch.setattr(oracle, "STEPS", [4, 30])
    clean = pictures.TEST[NAME].crop(16)
    for what, some in choices.CHOICES.items():
        default, *_ = some.values()
        assert (default.setting, default.kind, default.guide, default.passes) == (oracle.DEFAULT, TileFilter, None, 2)
        for name, choice in some.items():
            psnr, seconds = choices.measure(NAME, clean, SIGMA, choice)
            assert 20 < psnr < 40, (what, name)
            assert seconds > 0


def test_table_of_choices():
    rows = [
        {"choice": name, "sigma": sigma, "psnr": {p: v + sigma / 10 for p, v in by_picture.items()}, "seconds": 2.0}
        for name, by_picture in (
            ("default", {"a": 30.0, "b": 32.0, "c": 31.0}),
            ("other", {"a": 31.0, "b": 30.0, "c": 32.0}),
        )
        for sigma in (10.0, 25.0)
    ]
    cells = [line.split() for line in choices.lines("what", rows)]
    assert cells[1] == ["default", "32.00", "+0.00", "+0.00", "33.50", "+0.00", "+0.00", "2.00"]
    assert cells[2] == ["other", "32.00", "+0.00", "+1.00", "33.50", "+0.00", "+1.00", "2.00"]


@pytest.mark.parametrize("command_main", [stopping.main, choices.main])
@pytest.mark.parametrize("option", ["--sigmas 0", "--sigmas inf", "--size 7", "--pictures nobody"])
def test_wrong_options_of_stopping_and_choices_are_named(command_main, option, capsys):
    with pytest.raises(SystemExit):
        command_main(option.split())
    assert option.split()[0] in capsys.readouterr().err
