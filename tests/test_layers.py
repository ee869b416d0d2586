"""These test each layer's arguments."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import numpy as np
import pytest

from ntkfast.activations import Abs, LeakyReLU, ReLU
from ntkfast.inputs import NoiseInput
from ntkfast.network import (
    AvgPool,
    Conv,
    Skip,
    Upsample,
)
from refusals import INF, NAN, refused


@pytest.mark.parametrize("value", [0, 2, 4, -1, -2, -3])
def test_conv_refuses_kernel_sizes_that_are_not_odd_and_positive(value):
    with refused(ValueError, "kernel_size must be an odd integer >= 1", f"got {value}"):
        Conv(value)


@pytest.mark.parametrize("value", [3.0, True, "3", None, (3, 3), 3 + 0j, np.float64(3), np.array([3]), NAN, INF])
def test_conv_refuses_kernel_sizes_that_are_no_integers(value):
    with refused(TypeError, "kernel_size must be an integer", f"got {value!r}"):
        Conv(value)


@pytest.mark.parametrize("value", [0, 0.0, -0.0, -1, -1e-300])
def test_conv_refuses_weight_variances_that_are_not_positive(value):
    with refused(ValueError, "weight_var must be positive", f"got {float(value)!r}"):
        Conv(3, weight_var=value)


@pytest.mark.parametrize("value", [-1, -1e-300])
def test_conv_refuses_negative_bias_variances(value):
    with refused(ValueError, "bias_var must be >= 0", f"got {float(value)!r}"):
        Conv(3, bias_var=value)


@pytest.mark.parametrize("name", ["weight_var", "bias_var"])
@pytest.mark.parametrize("value", [NAN, INF, -INF, np.float32("nan")])
def test_conv_refuses_variances_that_are_not_finite(name, value):
    with refused(ValueError, f"{name} must be finite", f"got {float(value)!r}"):
        Conv(3, **{name: value})


@pytest.mark.parametrize("name", ["weight_var", "bias_var"])
@pytest.mark.parametrize("value", ["2", True, False, None, 2 + 0j, [2.0], np.array([2.0]), b"2"])
def test_conv_refuses_variances_that_are_no_real_numbers(name, value):
    with refused(TypeError, f"{name} must be a real number", f"got {value!r}"):
        Conv(3, **{name: value})


@pytest.mark.parametrize("value", [1, 0, None, "yes", np.True_, 1.0])
def test_conv_refuses_trainable_that_is_no_bool(value):
    with refused(TypeError, "trainable must be True or False", f"got {value!r}"):
        Conv(3, trainable=value)


@pytest.mark.parametrize("value", [0, 3, 4, -1])
def test_conv_refuses_strides_other_than_one_and_two(value):
    with refused(ValueError, "stride must be 1 or 2", f"got {value}"):
        Conv(3, stride=value)


@pytest.mark.parametrize("value", [2.0, True, "2", None, (2, 2)])
def test_conv_refuses_strides_that_are_no_integers(value):
    with refused(TypeError, "stride must be an integer", f"got {value!r}"):
        Conv(3, stride=value)


def test_conv_takes_only_the_kernel_size_by_position():
    with pytest.raises(TypeError, match="positional"):
        Conv(3, 1.0)


def test_conv_defaults():
    conv = Conv(3)
    assert dataclasses.astuple(conv) == (3, 1, 2.0, 0.0, True)


def test_conv_stores_plain_numbers():
    conv = Conv(np.int32(5), weight_var=np.float32(0.5), bias_var=Fraction(1, 4))
    assert [type(v) for v in dataclasses.astuple(conv)] == [int, int, float, float, bool]
    assert conv == Conv(5, weight_var=0.5, bias_var=0.25)


@pytest.mark.parametrize(("kernel_size", "radius"), [(1, 0), (3, 1), (5, 2), (101, 50)])
def test_conv_radius(kernel_size, radius):
    assert Conv(kernel_size).radius == radius


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_leaky_relu_refuses_slopes_that_are_not_finite(value):
    with refused(ValueError, "slope must be finite", f"got {value!r}"):
        LeakyReLU(value)


@pytest.mark.parametrize("value", ["0.1", 1j, 0.1 + 0j, True, None, [0.1], np.array(0.1)])
def test_leaky_relu_refuses_slopes_that_are_no_real_numbers(value):
    with refused(TypeError, "slope must be a real number", f"got {value!r}"):
        LeakyReLU(value)


def test_leaky_relu_needs_a_slope():
    with pytest.raises(TypeError, match="slope"):
        LeakyReLU()


@pytest.mark.parametrize("value", [-1, 0, 0.1, 1, 3, Fraction(1, 2), np.float32(0.25)])
def test_leaky_relu_takes_any_finite_slope(value):
    slope = LeakyReLU(value).slope
    assert type(slope) is float
    assert slope == value


def test_relu_has_slope_zero_and_no_arguments():
    assert ReLU().slope == 0.0
    with pytest.raises(TypeError):
        ReLU(0.1)


def test_abs_has_slope_minus_one_and_no_arguments():
    assert Abs().slope == -1.0
    assert Abs() != LeakyReLU(-1)
    with pytest.raises(TypeError):
        Abs(0.1)


@pytest.mark.parametrize("cls", [AvgPool, Upsample])
def test_pools_and_upsampling_have_the_factor_two_alone(cls):
    assert cls() == cls(np.int32(2))
    for value in (1, 4, 0, -2):
        with refused(ValueError, "factor must be 2 (use two layers for 4)", f"got {value}"):
            cls(value)
    for value in (2.0, True, "2", None, (2, 2)):
        with refused(TypeError, "factor must be an integer", f"got {value!r}"):
            cls(value)


def test_upsample_has_two_modes():
    assert Upsample().mode == "bilinear"
    assert Upsample(mode="nearest").mode == "nearest"
    with refused(ValueError, "mode must be one of ('bilinear', 'nearest')", "got 'cubic'"):
        Upsample(mode="cubic")
    with refused(TypeError, "mode must be one of", "got 1"):
        Upsample(mode=1)


def test_skip_takes_any_iterables_and_keeps_tuples():
    skip = Skip(iter([Conv(3), ReLU()]), share=Fraction(1, 4), shortcut=[Conv(1)])
    assert (skip.layers, skip.shortcut) == ((Conv(3), ReLU()), (Conv(1),))
    assert (skip.merge, skip.share) == ("concat", 0.25)
    assert (Skip([Conv(3)]).share, Skip([Conv(3)]).shortcut) == (0.5, ())
    assert len({skip, dataclasses.replace(skip), dataclasses.replace(skip, share=0.5)}) == 2


def test_skip_refuses_what_is_no_path():
    with refused(ValueError, "layers of a Skip must hold at least one layer", "got none"):
        Skip([])
    with refused(TypeError, "layers must be a sequence of layers", "got Conv(3)"):
        Skip(Conv(3))
    with refused(TypeError, "shortcut must be a sequence of layers", "got None"):
        Skip([Conv(3)], shortcut=None)
    with refused(TypeError, "layers[1] must be a Conv", "got 'ReLU'"):
        Skip([Conv(3), "ReLU"])
    with refused(TypeError, "shortcut[0] must be a Conv", "ReLU", "parentheses"):
        Skip([Conv(3)], shortcut=[ReLU])


@pytest.mark.parametrize("value", ["sum", "", "Add"])
def test_skip_refuses_unknown_merges(value):
    with refused(ValueError, "merge must be one of ('concat', 'add')", f"got {value!r}"):
        Skip([Conv(3)], merge=value)


@pytest.mark.parametrize("value", [0, 1, -0.1, 1.5])
def test_skip_refuses_shares_of_nothing_and_of_all(value):
    with refused(ValueError, "share must lie strictly between 0 and 1", f"got {float(value)!r}"):
        Skip([Conv(3)], share=value)


def test_skip_refuses_a_share_of_a_sum():
    assert Skip([Conv(3)], merge="add", share=0.5) == Skip([Conv(3)], merge="add")
    with refused(ValueError, "share", "must be left out with merge='add'", "got 0.3"):
        Skip([Conv(3)], merge="add", share=0.3)
    with refused(TypeError, "share must be a real number", "got 'half'"):
        Skip([Conv(3)], share="half")


def test_noise_input_is_a_shape():
    assert NoiseInput((3, np.int64(4))) == NoiseInput([3, 4])
    assert len({NoiseInput((3, 4)), NoiseInput((3, 4)), NoiseInput((4, 3))}) == 2
    for shape in (3, None, (3,), (3, 4, 1), "34"):
        with refused(TypeError, "shape must be a pair (H, W) of integers", f"got {shape!r}"):
            NoiseInput(shape)
    with refused(TypeError, "shape[1] must be an integer", "got 4.0"):
        NoiseInput((3, 4.0))
    with refused(ValueError, "shape must hold integers >= 1", "got (0, 4)"):
        NoiseInput((0, 4))
