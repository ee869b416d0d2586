"""The scripts that hold two commits against each other: hashes of results, and ratios of times."""

from __future__ import annotations

import json

import numpy as np
import pytest
from bench import bits, paired


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


def test_ratios_of_both_orders(monkeypatch, tmp_path) -> None:
    asked = []

    def measured(package, small):
        asked.append(package.name)
        return {"call": 2.0 if package.name == "after" else 1.6}

    monkeypatch.setattr(paired, "in_process", measured)
    found = paired.ratios(tmp_path / "before", tmp_path / "after", 2, small=True)
    assert found == {"call": [1.25, 1.25]}
    assert asked == ["before", "after", "after", "before"]


def test_an_interval_holds_the_mean() -> None:
    low, high = paired.interval([0.99, 1.0, 1.01])  # mean 1, standard error 0.01/sqrt(3), 4.303 of them
    assert (low, high) == pytest.approx((1 - 0.02484, 1 + 0.02484), abs=1e-4)
