"""These test what finite networks and their kernels refuse."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from finite_networks import tangent_kernel
from ntkfast.activations import ReLU
from ntkfast.engine import memory
from ntkfast.finite import to_torch
from ntkfast.network import Conv, Network, unet, vanilla_cnn
from refusals import refused

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.mark.parametrize("name", ["width", "in_channels", "out_channels", "rng"])
def test_to_torch_refuses_bad_integers(name):
    arguments = {"width": 4, "in_channels": 1, "rng": 0}
    for value in (1.0, "1", True, None)[: 3 if name == "rng" else 4]:
        with refused(TypeError, f"{name} must be an integer", f"got {value!r}"):
            to_torch(vanilla_cnn(), **{**arguments, name: value})
    least = 0 if name == "rng" else 1
    for value in (least - 1, -5):
        with refused(ValueError, f"{name} must be at least {least}", f"got {value}"):
            to_torch(vanilla_cnn(), **{**arguments, name: value})
    assert to_torch(vanilla_cnn(), **{**arguments, name: np.int64(3)})


def test_to_torch_refuses_seeds_that_torch_has_not():
    assert to_torch(vanilla_cnn(), 4, 1, 2**63 - 1)
    with refused(ValueError, "rng must be less than 2**63", f"got {2**63}"):
        to_torch(vanilla_cnn(), 4, 1, 2**63)


@pytest.mark.parametrize("value", [torch.int64, torch.complex64, "float64", float, None, np.float64])
def test_to_torch_refuses_dtypes_that_are_not_floating_point(value):
    with refused(TypeError, "dtype must be a floating-point torch.dtype", f"got {value!r}"):
        to_torch(vanilla_cnn(), 4, 1, dtype=value)


@pytest.mark.parametrize("value", [None, [Conv(3)], Network, "net"])
def test_to_torch_refuses_what_is_no_network(value):
    with refused(TypeError, "network must be an ntkfast.Network", f"got {value!r}"):
        to_torch(value, 4, 1)


@pytest.mark.parametrize(
    ("dtype", "needed"),
    [
        # The bytes are those of 3x3 from 2 to 7 channels with a bias, 1x1 from 7 to 3: what is kept, and float64 for
        # one draw.
        (torch.float64, 8 * (126 + 7 + 21)),
        (torch.float32, 4 * 126 + 8 * 126),
        (torch.float16, 2 * 126 + 8 * 126),
    ],
)
def test_to_torch_refuses_networks_that_do_not_fit_before_drawing(dtype, needed, monkeypatch):
    network = Network([Conv(3, bias_var=0.5), ReLU(), Conv(1)])
    monkeypatch.setattr(memory, "available_memory", lambda: needed - 1)
    named = "width = 7, in_channels = 2 and out_channels = 3"
    with refused(MemoryError, named, f"{needed} bytes", "but only", "use fewer channels"):
        to_torch(network, 7, 2, dtype=dtype, out_channels=3)
    monkeypatch.setattr(memory, "available_memory", lambda: needed)
    to_torch(network, 7, 2, dtype=dtype, out_channels=3)


def test_to_torch_refuses_a_width_that_fits_nowhere():
    with refused(MemoryError, f"width = {10**12}, in_channels = 1", "bytes), but only"):
        to_torch(unet(2), 10**12, 1)


@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (2, 2, 4), (2, 2)])
def test_modules_refuse_inputs_of_another_shape(shape):
    with refused(ValueError, "input must have shape (N, 2, H, W)", f"got {shape}"):
        to_torch(vanilla_cnn(), 4, 2)(torch.zeros(shape, dtype=torch.float64))


@pytest.mark.parametrize("shape", [(4,), (1, 1, 4, 4), (0, 4), (4, 0, 1), (4, 4, 0), ()])
def test_empirical_ntk_refuses_arrays_that_are_no_images(shape):
    with refused(ValueError, "x must", f"got shape {shape}"):
        tangent_kernel(to_torch(vanilla_cnn(), 4, 1), np.zeros(shape))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_empirical_ntk_refuses_images_that_are_not_finite(value):
    image = np.zeros((3, 3))
    image[1, 2] = value
    with refused(ValueError, "x must be finite"):
        tangent_kernel(to_torch(vanilla_cnn(), 4, 1), image)


@pytest.mark.parametrize("value", [np.zeros((2, 2), complex), np.array([["a"]]), None, "image"])
def test_empirical_ntk_refuses_images_that_are_not_real(value):
    with refused(TypeError, "x must be a real numeric array", "got dtype"):
        tangent_kernel(to_torch(vanilla_cnn(), 4, 1), value)


@pytest.mark.parametrize("value", [None, vanilla_cnn(), torch.nn.ReLU])
def test_empirical_ntk_refuses_what_is_no_module(value):
    with refused(TypeError, "module must be a torch.nn.Module", f"got {value!r}"):
        tangent_kernel(value, np.zeros((2, 2)))


def test_empirical_ntk_refuses_modules_without_parameters_or_with_other_outputs():
    with refused(ValueError, "module must have parameters", "got ReLU()"):
        tangent_kernel(torch.nn.ReLU(), np.zeros((2, 2)))
    with refused(TypeError, "module must have parameters of float32 or float64", "got torch.float16"):
        tangent_kernel(to_torch(vanilla_cnn(), 4, 1, dtype=torch.float16), np.zeros((2, 2)))
    for other, shape in ((torch.nn.Conv2d(1, 1, 2), "(1, 1, 1, 2)"), (torch.nn.Flatten(2), "(1, 1, 6)")):
        module = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), other)
        with refused(ValueError, "module must map to shape (1, C_out, 2, 3)", f"got {shape}"):
            tangent_kernel(module, np.zeros((2, 3)))
    with refused(ValueError, "module must take x", "input must have shape (N, 3, H, W)", "got (1, 1, 2, 3)"):
        tangent_kernel(to_torch(vanilla_cnn(), 4, 3), np.zeros((2, 3)))


@pytest.mark.parametrize("use", ["import ntkfast.finite", "ntkfast.from_torch", "from ntkfast import from_torch"])
def test_without_torch_the_import_says_what_is_missing(use):
    code = f"import sys; sys.modules['torch'] = None; import ntkfast; print('imported'); {use}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "imported\n"
    assert "ImportError: ntkfast.finite and from_torch need PyTorch: install it with `pip install torch`" in done.stderr
