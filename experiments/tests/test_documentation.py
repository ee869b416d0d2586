"""The page of the documentation, and what it is not replaced by."""

import dataclasses

import pytest

from experiments import __main__ as command
from experiments import registry, workers
from experiments.tests.toys import counting, toy

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Toys are known in this process alone."""
    monkeypatch.setattr(workers, "default_jobs", lambda device: 1)


@pytest.fixture
def docs(tmp_path, monkeypatch):
    """The documentation's folder, with an experiment whose results are quickly there."""
    monkeypatch.setattr(command, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(command, "RESULTS", tmp_path / "kept")
    monkeypatch.setattr(registry, "EXPERIMENTS", (toy(counting([])),))
    return tmp_path / "docs"


def argv_of(scale, tmp_path):
    return ["--scale", scale, "--out", str(tmp_path / scale), "--docs"]


@pytest.mark.parametrize(("scale", "kept"), [("tiny", False), ("small", False), ("medium", True), ("full", True)])
def test_report_of_a_larger_scale_is_not_replaced(docs, tmp_path, capsys, scale, kept):
    assert command.main(argv_of(scale, tmp_path)) == 0
    before = (docs / "paper.md").read_text()
    assert f"--scale {scale}" in before
    if kept:
        with pytest.raises(SystemExit):
            command.main(argv_of("small", tmp_path))
        assert f"larger scale {scale}" in capsys.readouterr().err
        assert (docs / "paper.md").read_text() == before
        assert not (tmp_path / "small").exists()
    else:
        assert command.main(argv_of("small", tmp_path)) == 0
        assert "--scale small" in (docs / "paper.md").read_text()


def test_figures_that_the_new_report_has_not_are_deleted(docs, tmp_path):
    images = docs / "images" / "paper"
    images.mkdir(parents=True)
    (images / "old.png").write_bytes(b"")
    (images / "notes.txt").write_text("")
    assert command.main(argv_of("tiny", tmp_path)) == 0
    assert [path.name for path in images.iterdir()] == ["notes.txt"]


def test_incomplete_report_is_not_published(docs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(registry, "EXPERIMENTS", (toy(counting([], fails_at=1)),))
    assert command.main(argv_of("tiny", tmp_path)) == 1
    assert "paper.md was not written: units without a result in toy" in capsys.readouterr().err
    assert not docs.exists()


def test_part_of_the_experiments_is_not_published(docs, tmp_path, monkeypatch):
    other = dataclasses.replace(toy(counting([])), name="other")
    monkeypatch.setattr(registry, "EXPERIMENTS", (toy(counting([])), other))
    assert command.main([*argv_of("tiny", tmp_path), "--only", "toy"]) == 1
    assert not docs.exists()
    assert not command.RESULTS.exists()
    assert command.main([*argv_of("tiny", tmp_path), "--only", "other"]) == 0
    assert "--scale tiny" in (docs / "paper.md").read_text()
