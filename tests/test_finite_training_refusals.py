"""These test what training refuses, and how divergence ends it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from finite_training import linear, train
from ntkfast.finite import Record, to_torch
from ntkfast.network import Conv, Network, unet, vanilla_cnn
from refusals import refused

pytestmark = pytest.mark.usefixtures("one_torch_thread")


def test_divergence_is_an_error_that_names_the_rate():
    module, x, y, K = linear()
    eta = 4 / np.linalg.eigvalsh(K.dense())[-1]
    with refused(RuntimeError, "training diverged", "at step", f"learning_rate must be smaller than {eta!r}"):
        train(module, x, y, steps=5000, learning_rate=eta)
    assert all(p.grad is None for p in module.parameters())


@pytest.mark.parametrize("record", [[0], [1]])
def test_divergence_after_the_last_record_is_an_error_too(record):
    module, x, y, K = linear()
    eta = 1e200 / np.linalg.eigvalsh(K.dense())[-1]
    with refused(RuntimeError, "training diverged", "at step 31"):
        train(module, x, y, steps=31, learning_rate=eta, record=Record(steps=record))


@pytest.mark.parametrize(
    ("change", "error", "parts"),
    [
        ({"optimizer": "sgd"}, ValueError, ("optimizer must be one of ('gd', 'momentum', 'adam')", "got 'sgd'")),
        ({"optimizer": None}, TypeError, ("optimizer must be one of", "got None")),
        ({"learning_rate": 0.0}, ValueError, ("learning_rate must be positive", "got 0.0")),
        ({"learning_rate": -1}, ValueError, ("learning_rate must be positive", "got -1.0")),
        ({"learning_rate": math.nan}, ValueError, ("learning_rate must be finite", "got nan")),
        ({"learning_rate": "fast"}, TypeError, ("learning_rate must be a real number", "got 'fast'")),
        ({"steps": -1}, ValueError, ("steps must be at least 0", "got -1")),
        ({"steps": 10**30}, ValueError, ("steps must be at most 2**53 = ", f"got {10**30}")),
        ({"steps": 2.0}, TypeError, ("steps must be an integer", "got 2.0")),
        ({"record": Record(steps=[3, 0])}, ValueError, ("record must have steps", "steps = 2", "got 0 to 3")),
        ({"record": [0, 2]}, TypeError, ("record must be a ntkfast.finite.Record", "got [0, 2]")),
        ({"progress": 1}, TypeError, ("progress must be callable", "got 1")),
        ({"x": np.zeros((5, 4))}, ValueError, ("x must have 3 dimensions", "got shape (5, 4)")),
        ({"y": np.zeros((5, 4))}, ValueError, ("y must have 3 dimensions", "got shape (5, 4)")),
        (
            {"channel_axis": None},
            ValueError,
            (
                "x has shape (5, 4, 2), 3 dimensions",
                "channel_axis=-1",
            ),
        ),
        ({"channel_axis": 3}, ValueError, ("channel_axis must lie between -3 and 2", "got 3")),
        ({"x": np.full((5, 4, 2), np.nan)}, ValueError, ("x must be finite",)),
        ({"x": np.zeros((5, 4, 1))}, ValueError, ("module must take x", "input must have shape (N, 2, H, W)")),
        ({"y": np.full((5, 4, 1), np.inf)}, ValueError, ("y must be finite",)),
        ({"y": np.zeros((4, 5, 1))}, ValueError, ("y must have the shape", "(5, 4) with 1", "got (4, 5) with 1")),
        ({"y": np.zeros((5, 4, 2))}, ValueError, ("y must have the shape", "got (5, 4) with 2")),
        ({"y": None}, TypeError, ("y must be a real numeric array",)),
        ({"record": Record(probe=np.zeros(19))}, ValueError, ("probe must have shape (20,) or (20, k)", "got (19,)")),
        (
            {"record": Record(probe=np.zeros((20, 1, 1)))},
            ValueError,
            ("probe must have shape (20,) or (20, k)", "got (20, 1, 1)"),
        ),
        (
            {"record": Record(clean=np.zeros((4, 5, 1)), data_range=1)},
            ValueError,
            ("clean must have the shape of y, (5, 4)", "got shape (4, 5, 1)"),
        ),
    ],
)
def test_bad_arguments_are_refused_before_any_step(change, error, parts):
    module, x, y, _ = linear()
    before = [p.clone() for p in module.parameters()]
    with refused(error, *parts):
        train(module, **{"x": x, "y": y, "steps": 2, "learning_rate": 0.01} | change)
    assert all(torch.equal(p, q) for p, q in zip(module.parameters(), before, strict=True))


@pytest.mark.parametrize(
    ("change", "error", "parts"),
    [
        ({"steps": [-1]}, ValueError, ("steps must be at least 0", "got -1")),
        ({"steps": []}, ValueError, ("steps must have at least one step",)),
        ({"steps": 2}, TypeError, ("steps must be a sequence of steps", "got 2")),
        ({"steps": "12"}, TypeError, ("steps must be a sequence of steps", "got '12'")),
        ({"steps": [0.5]}, TypeError, ("steps must be an integer", "got 0.5")),
        ({"clean": np.zeros((5, 4))}, ValueError, ("data_range must be given with clean",)),
        ({"data_range": 1.0}, ValueError, ("data_range must come with clean", "got 1.0")),
        ({"clean": np.zeros((5, 4)), "data_range": 0}, ValueError, ("data_range must be positive", "got 0.0")),
    ],
)
def test_bad_records_are_refused_where_they_are_made(change, error, parts):
    with refused(error, *parts):
        Record(**change)


@pytest.mark.parametrize("name", ["x", "y", "probe"])
def test_values_that_overflow_in_the_type_of_the_parameters_are_refused_by_name(name):
    module, x, y, _ = linear()
    arguments = {"x": x, "y": y, "probe": np.ones(20)}
    arguments[name] = np.full_like(arguments[name], -2e39)
    with refused(ValueError, f"{name} must be finite in float32", "got values up to 2e+39"):
        record = Record(probe=arguments.pop("probe"))
        train(module.float(), **arguments, steps=2, learning_rate=0.01, record=record)


@pytest.mark.parametrize("probe", [None, np.ones(20)])
def test_a_module_that_starts_with_nan_is_no_divergence(probe):
    module, x, y, _ = linear()
    with torch.no_grad():
        module[0].bias[:] = math.nan
    with refused(ValueError, "module must have a finite output on x at the start", "got 20 NaN or infinite values"):
        train(module, x, y, steps=2, learning_rate=0.01, record=Record(probe=probe))


def test_the_largest_number_of_steps_can_begin():
    module, x, y, _ = linear()

    def stop(fraction):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(module, x, y, steps=2**53, learning_rate=0.01, progress=stop)


def test_bad_modules_are_refused():
    x = y = np.ones((4, 4, 1))
    with refused(TypeError, "module must be a torch.nn.Module", "got None"):
        train(None, x, y, steps=1, learning_rate=1)
    with refused(ValueError, "module must have parameters", "got ReLU()"):
        train(torch.nn.ReLU(), x, y, steps=1, learning_rate=1)
    with refused(ValueError, "module must have parameters with requires_grad=True"):
        train(to_torch(Network([Conv(3, trainable=False)]), 1, 1), x, y, steps=1, learning_rate=1)
    with refused(TypeError, "module must have parameters of float32 or float64", "got torch.bfloat16"):
        train(to_torch(vanilla_cnn(), 2, 1, dtype=torch.bfloat16), x, y, steps=1, learning_rate=1)
    with refused(ValueError, "module must map to shape (1, C_out, 4, 4)", "got (1, 1, 3, 3)"):
        train(torch.nn.Conv2d(1, 1, 2), x, y, steps=1, learning_rate=1)
    with refused(ValueError, "module must take x of shape (1, C, H, W)", "(1, 1, 6, 6)", "Sizes of tensors must match"):
        train(to_torch(unet(2), 4, 1), np.ones((6, 6, 1)), np.ones((6, 6, 1)), steps=1, learning_rate=1)
    with refused(ValueError, "module must take x of shape (1, C, H, W)", "(1, 1, 4, 4)", "Given groups=1"):
        train(torch.nn.Conv2d(3, 1, 3), x, y, steps=1, learning_rate=1)
