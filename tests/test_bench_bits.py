"""These scripts hold two commits against each other: hashes of results, and ratios of times."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from bench import bits, paired

import ntkfast as nf


def test_calls_cover_what_the_package_computes() -> None:
    names = " ".join(bits.calls())
    assert len(bits.calls()) >= 40
    for part in (
        "circular",
        "nngp",
        "coarse",
        "dense",
        "float64",
        "baseline",
        "denoise",
        "restore",
        "reference",
        "ridge",
    ):
        assert part in names


def test_a_hash_is_of_dtype_shape_and_bits() -> None:
    one = np.arange(6.0)
    assert bits.digest(one) == bits.digest(list(one))
    others = (one.astype(np.float32), one.reshape(2, 3), np.nextafter(one, 9))
    assert len({bits.digest(x) for x in (one, *others)}) == 4


def test_what_differs_is_told(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(bits, "calls", lambda: {"a": lambda: 1.0, "b": lambda: 2.0})
    before = tmp_path / "before.json"
    assert bits.main(["--json", str(before)]) == 0
    assert bits.main(["--against", str(before)]) == 0
    assert "0 of 2 differ" in capsys.readouterr().out
    before.write_text(json.dumps(json.loads(before.read_text()) | {"b": "0", "c": "1"}))
    assert bits.main(["--against", str(before)]) == 1
    out = capsys.readouterr().out
    assert "DIFFERENT" in out
    assert "MISSING" in out
    assert "2 of 3 differ" in out


def test_ratios_of_calls_in_turn(monkeypatch, tmp_path) -> None:
    asked = []

    class Worker:
        def __init__(self, package, small):
            self.name = package.name

        def seconds(self, call):
            asked.append(self.name)
            return 9.0 if len(asked) <= 2 else {"after": 2.0, "before": 1.6}[self.name]

        def close(self):
            asked.append("closed")

    monkeypatch.setattr(paired, "Worker", Worker)
    monkeypatch.setattr(paired, "NAMES", ("call",))
    found = paired.ratios(tmp_path / "before", tmp_path / "after", 2, small=True)
    assert found == {"call": [1.25, 1.25]}
    turns = ["before", "after", "after", "before"]
    half = paired.REPEATS + 1
    assert asked[:4] == turns
    assert asked[2 * half + 2 :][:4] == ["after", "before", "before", "after"]
    assert asked.count("closed") == 4


def test_a_worker_makes_the_calls(capfd) -> None:
    worker = paired.Worker(Path(nf.__file__).parent.parent, small=True)
    assert all(worker.seconds(name) > 0 for name in paired.NAMES)
    worker.close()


def test_an_interval_holds_the_mean() -> None:
    low, high = paired.interval([0.99, 1.0, 1.01])  # mean 1, standard error 0.01/sqrt(3), 4.303 of them
    assert (low, high) == pytest.approx((1 - 0.02484, 1 + 0.02484), abs=1e-4)
