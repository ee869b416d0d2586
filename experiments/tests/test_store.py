"""Results on disk: of which settings and versions they count, and what is damaged."""

import json

import numpy as np
import pytest

from experiments import __main__ as command
from experiments import registry, workers
from experiments.experiment import Result, Unit
from experiments.store import FolderError, Store
from experiments.tests.toys import TINY, counting, toy

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Toys are known in this process alone."""
    monkeypatch.setattr(workers, "default_jobs", lambda device: 1)


def test_results_of_other_settings_or_versions_do_not_count(tmp_path):
    store = Store(tmp_path)
    first = toy(counting([]))
    assert command.compute([first], TINY, store, "cpu") == (3, 0)
    unit = first.units(TINY)[2]
    record = Store(tmp_path).get(first, unit)
    assert record.values == {"square": 4}
    np.testing.assert_array_equal(record.load()["ramp"], [0, 1, 2])
    assert store.get(toy(counting([]), version=2), unit) is None
    assert store.get(first, Unit(unit.key, {"n": 3})) is None
    (tmp_path / "arrays").rename(tmp_path / "lost")
    assert store.get(first, unit) is None


def test_results_must_be_finite(tmp_path):
    experiment = toy(lambda settings, tools: Result({"x": float("nan")}))
    with pytest.raises(ValueError, match="JSON"):
        Store(tmp_path).put(experiment, experiment.units(TINY)[0], Result({"x": float("nan")}), 1.0, "cpu")
    assert not (tmp_path / "results.json").exists()


WHOLE = {
    "fingerprint": "0",
    "settings": {},
    "values": {},
    "arrays": None,
    "seconds": 1.0,
    "machine": "m",
    "commit": "c",
    "date": "2026-01-01",
}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"values": []}, "values of a/b"),
        ({"settings": None}, "settings of a/b"),
        ({"seconds": "1"}, "seconds of a/b"),
        ({"seconds": True}, "seconds of a/b"),
        ({"arrays": 3}, "arrays of a/b"),
        ({"machine": "other"}, "machine of a/b is not among"),
        ({"date": 2026}, "date of a/b"),
    ],
)
def test_entries_of_another_kind_are_named(tmp_path, changed, named):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"machines": {"m": {}}, "results": {"a/b": WHOLE}}))
    Store(tmp_path)
    path.write_text(json.dumps({"machines": {"m": {}}, "results": {"a/b": WHOLE | changed}}))
    with pytest.raises(FolderError, match=named):
        Store(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        '{"results": {}}',
        '{"machines": [], "results": {}}',
        "null",
        "",
        "{",
        "[]",
        "{}",
        '{"machines": {}, "results": {"a": {}}}',
        '{"machines": {}, "results": []}',
        "\0",
    ],
)
def test_damaged_results_are_named_and_kept(tmp_path, monkeypatch, capsys, content):
    path = tmp_path / "results.json"
    path.write_text(content)
    monkeypatch.setattr(registry, "EXPERIMENTS", (toy(counting([])),))
    assert command.main(["--scale", "tiny", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert str(path) in error
    assert "move it away" in error
    assert path.read_text() == content


def test_unit_with_damaged_arrays_is_computed_again(tmp_path):
    calls = []
    experiment, store = toy(counting(calls)), Store(tmp_path)
    command.compute([experiment], TINY, store, "cpu")
    files = sorted((tmp_path / "arrays").iterdir())
    whole = files[0].read_bytes()
    files[0].write_bytes(whole[: len(whole) // 2])
    files[1].write_bytes(b"")
    command.compute([experiment], TINY, store, "cpu")
    assert calls == [0, 1, 2, 0, 1]
    assert [len(record.load()["ramp"]) for record in store.records(experiment, experiment.units(TINY))] == [1, 2, 3]


def test_results_of_a_run_that_has_just_ended_are_seen(tmp_path):
    experiment, late = toy(counting([])), Store(tmp_path)
    command.compute([experiment], TINY, Store(tmp_path), "cpu")
    with late.locked():
        assert len(late.records(experiment, experiment.units(TINY))) == 3
