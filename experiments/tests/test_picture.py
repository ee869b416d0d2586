"""The paper's ten cases on a picture of one's own, with tiny pictures, networks and budgets."""

import dataclasses
import json
import re
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile

from experiments import __main__ as command
from experiments import analysis, architectures, report, workers
from experiments.architectures import OF_PICTURES
from experiments.experiment import Tools
from experiments.layout import laid_out
from experiments.picture import command as picture
from experiments.picture import measure, reading, text
from experiments.scales import OF_PICTURES as SIZES
from experiments.table.claims import ON_HOUSE
from experiments.tests.again import DB, best_of, filtered
from ntkfast.reference import kernel_matrix

pytest.importorskip("torch")

TINY = dataclasses.replace(SIZES, most_steps=12, points=5, widths={"vanilla": 8, "autoencoder": 4}, channels=4)


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path):
    """Keep sizes small, and what is published in a folder of its own."""
    monkeypatch.setattr(picture, "SIZES", TINY)
    monkeypatch.setattr(command, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(command, "RESULTS", tmp_path / "kept")


def shades(channels=0):
    """Return a picture of 13 x 18 pixels, whose sides the autoencoder does not take as they are."""
    ramp = np.add.outer(10 * np.arange(13), 5 * np.arange(18)).astype(np.uint8)
    return np.dstack([ramp, 255 - ramp, ramp // 2]) if channels else ramp


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "ramp.png"
    file.write_bytes(imagecodecs.png_encode(shades()))
    return file


def argv_of(path, tmp_path, *more, budget=100.0):
    return ["--picture", str(path), "--budget", str(budget), "--out", str(tmp_path / "out"), *more]


def summary_in(tmp_path):
    return json.loads((tmp_path / "out" / "summary.json").read_text())


# --- A whole run --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [0, 3])
def test_all_ten_cases_are_filled(path, tmp_path, capsys, channels):
    path.write_bytes(imagecodecs.png_encode(shades(channels)))
    assert command.main(argv_of(path, tmp_path, "--title", "A ramp")) == 0
    found = summary_in(tmp_path)
    assert found["picture"]["shape"] == [12, 16, channels or 1]
    assert found["picture"]["title"] == "A ramp"
    assert {tuple(key.split("/")): case["paper"] for key, case in found["cases"].items()} == ON_HOUSE
    for key, case in found["cases"].items():
        for mean in reading.MEANS:
            assert (case[mean]["closed"] is None) == key.startswith("adam")
            assert (case[mean]["trained"] is None) == key.startswith("nystrom")
            if case[mean]["trained"]:
                assert case[mean]["trained"]["done"] == TINY.most_steps
                assert case[mean]["trained"]["width"] == TINY.widths[key.split("/")[1]]
    assert len((tmp_path / "out" / "summary.json").read_text().splitlines()) < 300
    page = (tmp_path / "out" / "report.md").read_text()
    assert page.startswith(text.HEADING)
    assert "The picture is A ramp: 12 x 16 pixels, " + ("colour" if channels else "gray") in page
    assert max(len(line) for line in page.splitlines() if not line.startswith("|")) <= 120
    captured = capsys.readouterr()
    assert "report: " in captured.out
    assert "gd/vanilla/image/removed" in captured.err
    assert not list(tmp_path.rglob("*.part"))
    assert str(tmp_path) not in page + json.dumps(found)


def test_closed_forms_are_those_of_the_reference(path, tmp_path):
    assert command.main(argv_of(path, tmp_path, budget=1e-9)) == 0
    own, found = reading.read(path, None), summary_in(tmp_path)
    steps = analysis.times(TINY.most_steps, TINY.points)
    for name, network in OF_PICTURES.items():
        for source in ("image", "noise"):
            for mean in reading.MEANS:
                problem = own.problem(25.0, mean)
                x = problem.noisy
                if source == "noise":
                    x = architectures.noise_channels(12, TINY.channels, measure.SEED, width=16)
                path_ = filtered(kernel_matrix(network, x, channel_axis=-1), problem.noisy, steps)
                quality, at = best_of(problem, path_)
                entry = found["cases"][f"gd/{name}/{source}"][mean]
                assert entry["closed"]["psnr"] == pytest.approx(quality, abs=DB)
                assert entry["closed"]["steps"] == steps[at]
                assert entry["closed"]["last"] == (at == len(steps) - 1)
                assert entry["trained"] is None  # the budget reached none
    page = (tmp_path / "out" / "report.md").read_text()
    assert page.count("not reached |") == 16


def test_the_mean_is_removed_from_each_channel_or_kept(path):
    path.write_bytes(imagecodecs.png_encode(shades(3)))
    own = reading.read(path, None)
    removed, kept = (own.problem(25.0, mean) for mean in reading.MEANS)
    np.testing.assert_allclose(removed.noisy.mean(axis=(0, 1)), 0, atol=1e-12)
    np.testing.assert_array_equal(kept.clean, shades(3)[:12, :16] / 255)
    np.testing.assert_allclose(removed.noisy - removed.clean, kept.noisy - kept.clean, atol=1e-12)
    assert np.std(kept.noisy - kept.clean) == pytest.approx(25 / 255, rel=0.1)


def test_the_budget_ends_a_training_and_says_how_far_it_came(path, tmp_path, monkeypatch):
    own, left = reading.read(path, None), iter([1, 1, 1, 0])

    def progress(fraction):
        if fraction > 0 and not next(left, 0):
            raise StopIteration

    (unit, *_) = [
        unit
        for unit in measure.finite_units(own, 25.0, TINY, 1.0, {("vanilla", "image", "removed"): 1e-9})
        if unit.settings["optimizer"] == "adam"
    ]
    values = measure.run(own, unit.settings, Tools("cpu", progress)).values
    assert values["done"] == 4
    assert values["steps"] in analysis.times(TINY.most_steps, TINY.points)
    assert values["steps"] <= 3


def test_the_budget_may_end_before_the_first_step(path):
    def progress(fraction):
        raise StopIteration

    own = reading.read(path, None)
    for unit in measure.finite_units(own, 25.0, TINY, 1.0, {("autoencoder", "noise", "kept"): 1e-9}):
        values = measure.run(own, unit.settings, Tools("cpu", progress)).values
        assert values["done"] <= 1
        assert "psnr" not in values or values["steps"] <= 1


def test_stopped_runs_go_on_and_nothing_is_half_written(path, tmp_path, monkeypatch, capsys):
    calls, measured = [], workers.measure

    def stopped(work, unit, tools):
        if len(calls) == 2:
            calls.append("stop")
            raise KeyboardInterrupt
        calls.append(unit.key)
        return measured(work, unit, tools)

    monkeypatch.setattr(workers, "measure", stopped)
    assert command.main(argv_of(path, tmp_path)) == 130
    assert "the same command goes on" in capsys.readouterr().err
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"lock", "results.json"}
    done = calls[:2]
    calls.extend(["more"] * 2)
    assert command.main(argv_of(path, tmp_path)) == 0
    assert not set(done) & set(calls[5:])
    assert len(calls[5:]) == 22 - 2
    kernels = len(measure.kernel_units(reading.read(path, None), 25.0, TINY))
    # Another budget trains anew, and keeps the kernels.
    before = len(calls)
    assert command.main(argv_of(path, tmp_path, budget=200.0)) == 0
    assert len(calls) - before == 22 - kernels
    assert not any(key.startswith("kernel") for key in calls[before:])


def test_a_unit_that_fails_is_named_and_the_others_are_done(path, tmp_path, monkeypatch, capsys):
    def failing(*arguments, **options):
        raise RuntimeError("no luck")

    monkeypatch.setattr("ntkfast.finite.train", failing)
    assert command.main(argv_of(path, tmp_path)) == 1
    captured = capsys.readouterr()
    assert "picture/gd/vanilla/image/removed failed" in captured.err
    assert "no luck" in captured.err
    assert "16 units failed" in captured.err
    assert summary_in(tmp_path)["cases"]["gd/vanilla/image"]["removed"]["closed"]["psnr"] > 10


# --- The page of the documentation --------------------------------------------------------------------------------

PAGE = "# Title\n\nSome claims.\n\n## 1. First\n\nText.\n"


def test_the_table_becomes_the_last_section_of_the_page(path, tmp_path):
    page = tmp_path / "docs" / "paper.md"
    page.parent.mkdir()
    page.write_text(PAGE)
    assert command.main(argv_of(path, tmp_path, "--docs")) == 0
    shown = page.read_text()
    section = (tmp_path / "out" / "report.md").read_text()
    assert shown == f"{PAGE}\n{section}"
    kept = tmp_path / "kept" / "picture.json"
    assert kept.read_text() == (tmp_path / "out" / "summary.json").read_text()
    assert command.main(argv_of(path, tmp_path, "--docs", "--title", "Another")) == 0
    assert page.read_text().count(text.HEADING) == 1
    assert "The picture is Another:" in page.read_text()
    # A new report of the experiments has the section at its end, too.
    appendix = picture.appendix(kept.parent)
    report.publish(page, report.Report([], "tiny"), page.parent / "images", tmp_path, appendix)
    assert page.read_text().endswith((tmp_path / "out" / "report.md").read_text())
    assert page.read_text().startswith(report.TITLE)


def test_without_a_summary_the_page_has_no_such_section(tmp_path):
    assert picture.appendix(tmp_path) == ""
    assert report.with_section(PAGE, "") == PAGE


def test_docs_need_the_page(path, tmp_path, capsys):
    with pytest.raises(SystemExit):
        command.main(argv_of(path, tmp_path, "--docs"))
    assert "paper.md is not there" in capsys.readouterr().err


ROOT = Path(command.__file__).resolve().parent


def test_the_section_of_the_documentation_is_that_of_the_summary_kept():
    kept = ROOT / "results" / picture.KEPT
    found = json.loads(kept.read_text())
    assert kept.read_text() == laid_out(found) + "\n"
    assert len(kept.read_text().splitlines()) < 300
    page = (ROOT.parent / "docs" / "paper.md").read_text()
    assert page.endswith(f"\n\n{report.wrapped(picture.appendix(ROOT / 'results'))}\n")


# --- What is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--sigma", "0"], "argument --sigma: must be positive, got 0"),
        (["--sigma", "nan"], "argument --sigma: must be positive, got nan"),
        (["--budget", "-1"], "argument --budget: must be positive, got -1"),
        (["--claims", "results.json"], "--picture: not with --claims"),
        (["--only", "table"], "--picture: not with --only"),
    ],
)
def test_bad_options_are_refused(path, capsys, more, message):
    with pytest.raises(SystemExit) as stopped:
        command.main(["--picture", str(path), *more])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_options_of_a_picture_need_one(capsys):
    with pytest.raises(SystemExit):
        command.main(["--sigma", "25", "--budget", "3"])
    assert "--sigma, --budget: only with --picture" in capsys.readouterr().err


def written(name, tmp_path):
    """Write a file that is no picture for this."""
    file = tmp_path / name
    if name == "text.png":
        file.write_text("no picture")
    elif name == "small.png":
        file.write_bytes(imagecodecs.png_encode(np.zeros((3, 9), np.uint8)))
    elif name == "large.tif":
        tifffile.imwrite(file, np.full((8, 8), 255.0, np.float32))
    elif name == "unknown.tif":
        tifffile.imwrite(file, np.full((8, 8), np.nan, np.float32))
    return file


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("missing.png", "No such file"),
        ("text.png", "must be a PNG, JPEG or TIFF file"),
        ("small.png", r"must have at least 4 x 4 pixels, got 3 x 9"),
        ("large.tif", r"must have values from 0 to 1, as its samples are float32, got 255 to 255"),
        ("unknown.tif", r"must have values from 0 to 1"),
    ],
)
def test_files_that_are_no_pictures_are_refused_by_name(tmp_path, capsys, name, message):
    file = written(name, tmp_path)
    assert command.main(argv_of(file, tmp_path)) == 2
    error = capsys.readouterr().err
    assert "argument --picture: " in error
    assert name in error
    assert re.search(message, error)


@pytest.mark.parametrize(("dtype", "scale"), [(np.uint16, 257), (np.float32, 1 / 255)])
def test_white_is_the_largest_value_of_the_type(tmp_path, dtype, scale):
    file = tmp_path / "ramp.tif"
    tifffile.imwrite(file, (shades().astype(np.float64) * scale).astype(dtype))
    np.testing.assert_allclose(reading.read(file, None).pixels[..., 0], shades()[:12, :16] / 255, rtol=1e-6)


def test_pictures_that_do_not_fit_are_refused_before_any_work(path, tmp_path, monkeypatch, capsys):
    class Memory:
        available = 1000

    monkeypatch.setattr(measure.psutil, "virtual_memory", Memory)
    assert command.main(argv_of(path, tmp_path)) == 2
    assert re.search(r"needs \d+ bytes, but only 1000 are free", capsys.readouterr().err)
    assert not (tmp_path / "out" / "results.json").exists()
