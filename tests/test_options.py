"""The option objects: what they keep, how they are printed, and what they refuse."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

import ntkfast as nf

OBJECTS = [
    nf.Compute(dtype="float64", threads=2),
    nf.Tiles(nf.unet(1), 20, overlap=7, passes=3, steps=(1, 2, 3)),
    nf.WholeImage(landmarks=30, chroma_time=1),
    nf.Landweber(nf.vanilla_cnn(1, 5), [3, 9], 0.1, passes=2, tau=1.1),
    nf.NoiseModel(3),
    nf.NoiseModel([1.0, 2.0], estimated=True),
    nf.NoiseModel(np.full((3, 4), 2.0)),
    nf.PoissonGaussian(2.0, 3.0),
]


@pytest.mark.parametrize("value", OBJECTS, ids=repr)
def test_they_pickle_compare_and_do_not_change(value: Any) -> None:
    again = pickle.loads(pickle.dumps(value))
    assert again == value
    assert hash(again) == hash(value)
    assert type(again) is type(value)
    name = next(iter(vars(value)))
    with pytest.raises(AttributeError):
        setattr(value, name, 1)
    assert all(other is value or other != value for other in OBJECTS)


def test_they_are_printed_with_what_differs_from_the_defaults() -> None:
    assert repr(nf.Tiles()) == "Tiles()"
    assert repr(nf.Tiles(size=12, steps=5)) == "Tiles(steps=(5, 5), size=12)"
    assert repr(nf.WholeImage(landmarks=99)) == "WholeImage(landmarks=99)"
    assert repr(nf.Compute(device="cpu", dtype=np.float64)) == "Compute(device='cpu', dtype='float64')"
    assert repr(nf.Landweber(steps=[1, 9])) == "Landweber(steps=(1, 9))"
    assert repr(nf.NoiseModel(2.5)) == "NoiseModel(sigma=2.5)"
    assert repr(nf.NoiseModel(np.linspace(1, 2, 12).reshape(3, 4))) == "NoiseModel(sigma=1 to 2, of 3 x 4 pixels)"
    assert repr(nf.PoissonGaussian(2)) == "PoissonGaussian(gain=2.0, sigma=0.0)"
    for value in (nf.Tiles(nf.vanilla_cnn(2), 12, steps=5), nf.WholeImage(landmarks=3), nf.Compute(threads=3)):
        assert eval(repr(value), vars(nf) | {n: getattr(nf, n) for n in nf.__all__}) == value


def test_a_model_keeps_its_own_levels() -> None:
    levels = np.ones((3, 4))
    model = nf.NoiseModel(levels)
    levels[0, 0] = 7
    assert model.sigma[0, 0] == 1
    with pytest.raises(ValueError, match="read-only"):
        model.sigma[0, 0] = 7
    assert model != nf.NoiseModel(levels)
    assert nf.NoiseModel(np.array(2.0)) == nf.NoiseModel(2)
    assert nf.NoiseModel(1) != nf.PoissonGaussian(1, 1)


@pytest.mark.parametrize(
    ("make", "arguments", "error", "message"),
    [
        (nf.Tiles, {"size": 0}, ValueError, "size must be at least 1, got 0"),
        (nf.Tiles, {"overlap": 16}, ValueError, "overlap must be below size = 16, got 16"),
        (nf.Tiles, {"network": nf.unet(2), "size": 9, "overlap": 12}, ValueError, "below size = 12, got 12"),
        (nf.Tiles, {"overlap": -1}, ValueError, "overlap must be at least 0, got -1"),
        (nf.Tiles, {"passes": 0}, ValueError, "passes must be at least 1, got 0"),
        (nf.Tiles, {"steps": -3}, ValueError, "steps must be at least 0, got -3"),
        (nf.Tiles, {"steps": [1, 2, 3]}, ValueError, "steps must be one integer or 2, one for each pass, got 3"),
        (nf.Tiles, {"steps": "12"}, TypeError, "steps must be an integer"),
        (nf.Tiles, {"network": "vanilla"}, TypeError, "network must be an ntkfast.Network"),
        (nf.Tiles, {"network": nf.Network([nf.Conv(3, trainable=False)])}, ValueError, "trainable"),
        (nf.Tiles, {"stopping": "never"}, ValueError, r"stopping must be one of \('calibrated', .*\), got 'never'"),
        (nf.WholeImage, {"stopping": 3}, TypeError, "stopping must be one of .*, got 3"),
        (nf.WholeImage, {"landmarks": 0}, ValueError, "landmarks must be at least 1, got 0"),
        (nf.WholeImage, {"landmarks": 2.5}, TypeError, "landmarks must be an integer, got 2.5"),
        (nf.Tiles, {"chroma_time": 0}, ValueError, "chroma_time must be positive, got 0"),
        (nf.Tiles, {"chroma_time": float("inf")}, ValueError, "chroma_time must be finite, got inf"),
        (nf.Tiles, {"chroma_time": "1"}, TypeError, "chroma_time must be a real number, got '1'"),
        (nf.Compute, {"dtype": "float16"}, ValueError, "dtype must be"),
        (nf.Compute, {"threads": 0}, ValueError, "threads must be at least 1"),
        (nf.Compute, {"threads": 1025}, ValueError, "threads must be at most 1024"),
        (nf.Compute, {"progress": 1}, TypeError, "progress must be callable"),
        (nf.Compute, {"device": "gpu"}, ValueError, "device must be 'auto', .* got 'gpu'"),
        (nf.Compute, {"device": None}, TypeError, "device must be 'auto', .* got None"),
        (nf.Landweber, {"steps": "9"}, TypeError, "steps must be a number or a sequence of numbers, got '9'"),
        (nf.Landweber, {"steps": []}, ValueError, "steps must not be empty"),
        (nf.Landweber, {"learning_rate": 0}, ValueError, "learning_rate must be positive, got 0"),
        (nf.Landweber, {"passes": 0}, ValueError, "passes must be at least 1, got 0"),
        (nf.Landweber, {"tau": -1}, ValueError, "tau must be positive, got -1"),
        (nf.Landweber, {"storage": "disk"}, ValueError, "storage must be one of .* got 'disk'"),
        (nf.Landweber, {"solver": "cg"}, ValueError, r"solver must be one of \('lanczos', 'iteration'\), got 'cg'"),
        (nf.Landweber, {"tolerance": 0}, ValueError, "tolerance must be positive, got 0"),
        (nf.Landweber, {"max_products": 0}, ValueError, "max_products must be at least 1, got 0"),
        (nf.Landweber, {"network": 3}, TypeError, "network must be an ntkfast.Network, got 3"),
        (nf.NoiseModel, {"sigma": -1}, ValueError, "sigma must be >= 0, got -1"),
        (nf.NoiseModel, {"sigma": "a"}, TypeError, "sigma must be a real number, got 'a'"),
        (nf.NoiseModel, {"sigma": [1, np.inf]}, ValueError, "sigma must be finite, got 1 NaN or infinite"),
        (nf.NoiseModel, {"sigma": [1, 0]}, ValueError, "sigma must be positive at every channel, got 0.0"),
        (nf.PoissonGaussian, {"gain": 0}, ValueError, "gain must be > 0, .* got 0"),
        (nf.PoissonGaussian, {"gain": "1"}, TypeError, "gain must be a real number, got '1'"),
        (nf.PoissonGaussian, {"gain": 1, "sigma": -1}, ValueError, "sigma must lie between 0 and .* got -1"),
        (nf.PoissonGaussian, {"gain": 1, "sigma": np.ones(3)}, TypeError, "sigma must be a real number"),
    ],
)
def test_bad_values(make: Any, arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make(**arguments)
