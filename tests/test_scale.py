"""A network's gain changes nothing but the scale of its kernel, in either type and on either engine."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ntkfast as nf
from images import natural
from ntkfast.network import Layer, Network, Skip
from ntkfast.reference import kernel_matrix
from strategies import SMOOTH, chains, networks

DEVICES = ["cpu", *(name for name in nf.info()["devices"] if name.startswith("cuda"))][:2]
BARS = {"float32": 1e-6, "float64": 1e-12}

# (layers, weight_var): from those whose kernel float32 holds with no digits to spare to those that no float32 holds.
GAINS = [(16, 1e-2), (8, 1e-4), (8, 1e-6), (8, 1e6), (16, 1e-18), (16, 1e17)]


def stack(layers: int, weight_var: float, activation: Any = nf.ReLU, **conv: Any) -> Network:
    """Return convolutions with activations, and a last convolution of the usual variance."""
    hidden = [layer for _ in range(layers) for layer in (nf.Conv(3, weight_var=weight_var, **conv), activation())]
    return Network([*hidden, nf.Conv(1)])


def with_gains(network: Network, draw: Any) -> Network:
    """Return the same network, with weight variances drawn anew for each convolution."""

    def changed(layer: Layer) -> Layer:
        if isinstance(layer, nf.Conv):
            return nf.Conv(
                layer.kernel_size,
                stride=layer.stride,
                weight_var=draw(),
                bias_var=layer.bias_var * draw(),
                trainable=layer.trainable,
            )
        if isinstance(layer, Skip):
            shortcut = [changed(inner) for inner in layer.shortcut]
            branch = [changed(inner) for inner in layer.layers]
            return Skip(branch, shortcut=shortcut, merge=layer.merge, share=layer.share)
        return layer

    return Network([changed(layer) for layer in network.layers], padding=network.padding)


def error(K: nf.NTK | nf.NNGP, wanted: np.ndarray) -> float:
    """Return the largest error of an entry, over the largest entry, of what the engine computes."""
    entries = K.scaled.dense().astype(float) * K.scale
    return float(np.abs(entries - wanted).max() / np.abs(wanted).max())


def made(kind: type[Any], network: Network, image: np.ndarray, dtype: str, device: str) -> Any:
    """Return the kernel, or None where the network's gain is refused."""
    try:
        return kind(network, image, dtype=dtype, device=device)
    except ValueError as refused:
        if "network has a gain" in str(refused):
            return None
        raise


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return np.random.default_rng(0).standard_normal((12, 12))


@pytest.fixture(scope="module")
def target() -> np.ndarray:
    return np.random.default_rng(1).standard_normal(144)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", BARS)
@pytest.mark.parametrize(("layers", "weight_var"), GAINS)
def test_entries_whatever_the_gain(layers: int, weight_var: float, dtype: str, device: str, image: np.ndarray) -> None:
    network = stack(layers, weight_var)
    K = nf.NTK(network, image, dtype=dtype, device=device)
    assert error(K, kernel_matrix(network, image)) < BARS[dtype]
    usual = nf.NTK(stack(layers, 2.0), image, dtype="float64", device="cpu").diagonal()
    gain = 2.0 ** (layers * np.log2(weight_var / 2))
    assert K.scaled.diagonal().astype(float) * K.scale == pytest.approx(usual * gain, rel=1e-5)


@pytest.mark.parametrize("dtype", BARS)
def test_many_layers_that_double(dtype: str, image: np.ndarray) -> None:
    network = stack(130, 4.0)
    K = nf.NTK(network, image[:8, :8], dtype=dtype, device="cpu")
    assert error(K, kernel_matrix(network, image[:8, :8])) < BARS[dtype]


@pytest.mark.parametrize("dtype", BARS)
def test_gains_of_layers_that_cancel(dtype: str, image: np.ndarray) -> None:
    """Single layers may leave double precision, so long as the whole does not."""
    layers = [
        *[nf.Conv(3, weight_var=1e-100), nf.ReLU()] * 4,
        *[nf.Conv(3, weight_var=1e100), nf.ReLU()] * 4,
        nf.Conv(1),
    ]
    usual = [nf.Conv(3, weight_var=1.0), nf.ReLU()] * 8
    K = nf.NTK(Network(layers), image, dtype=dtype, device="cpu")
    assert K.scale == 1.0
    assert error(K, kernel_matrix(Network([*usual, nf.Conv(1)]), image)) < BARS[dtype]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", [nf.NTK, nf.NNGP])
@pytest.mark.parametrize(
    "activation", [nf.Erf, nf.GELU, nf.Sin, nf.Cos, nf.Gaussian, lambda: nf.LeakyReLU(1e8), lambda: nf.LeakyReLU(-1e-9)]
)
@pytest.mark.parametrize(("layers", "weight_var"), [(4, 1e-2), (6, 1e-6), (4, 1e3), (5, 1e6), (6, 1e15)])
def test_activations(
    activation: Any, layers: int, weight_var: float, kind: type[nf.NTK], device: str, image: np.ndarray
) -> None:
    """Those that are not homogeneous have another kernel at another gain, which the reference has too."""
    network = stack(layers, weight_var, activation)
    reference = kernel_matrix(network, image[:6, :6], kind.kind)
    for dtype, bar in BARS.items():
        K = made(kind, network, image[:6, :6], dtype, device)
        if K is not None:
            assert error(K, reference) < bar
        else:
            assert (dtype == "float32" and weight_var > 1e9) or not 1e-290 < np.abs(reference).max() < 1e290


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_random_networks_with_random_gains(data: st.DataObject) -> None:
    network = data.draw(networks() | chains())
    # Smooth activations have less than the usual accuracy behind variances far above 1 (docs/math.md).
    smooth = any(type(activation).__name__ in repr(network) for activation in SMOOTH)
    exponents = st.floats(-9, 0 if smooth else 9)
    network = with_gains(network, lambda: 10.0 ** data.draw(exponents))
    side = 2 * network.multiple if network.multiple > 2 else 6
    picture = natural(side, side, 1, data.draw(st.integers(0, 99)))[..., 0]
    kind = data.draw(st.sampled_from([nf.NTK, nf.NNGP] if network.trainable else [nf.NNGP]))
    wanted = kernel_matrix(network, picture, kind.kind)
    if not 1e-200 < np.abs(wanted).max() < 1e200:
        return
    device = data.draw(st.sampled_from(DEVICES))
    for dtype, bar in {"float32": 1e-5, "float64": 1e-7}.items():
        K = made(kind, network, picture, dtype, device)
        assert K is None or error(K, wanted) < bar


@pytest.mark.parametrize("storage", ["stream", "dense"])
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("layers", "weight_var"), [(8, 1e-6), (8, 1e6), (16, 1e-18), (3, 1e-3)])
def test_filters(
    layers: int, weight_var: float, device: str, storage: str, image: np.ndarray, target: np.ndarray
) -> None:
    usual = nf.NTK(stack(layers, 2.0), image, dtype="float64", device="cpu")
    K = nf.NTK(stack(layers, weight_var), image, device=device, storage=storage)
    gain = 2.0 ** (layers * np.log2(weight_var / 2))

    z = nf.gradient_descent(K, target, [1, 10, 200], tolerance=1e-7)
    wanted, info = nf.gradient_descent(usual, target, [1, 10, 200], return_info=True)
    assert np.abs(z - wanted).max() < 2e-6 * np.abs(wanted).max()
    _, found = nf.gradient_descent(K, target, [1, 10, 200], tolerance=1e-7, return_info=True)
    assert found.lambda_max == pytest.approx(info.lambda_max * gain, rel=1e-5)
    assert K.lambda_max == pytest.approx(found.lambda_max, rel=1e-12)
    assert found.learning_rate == pytest.approx(info.learning_rate / gain, rel=1e-5)

    slow = nf.gradient_descent(K, target, 10, method="iteration")
    assert np.abs(slow - wanted[1]).max() < 2e-6 * np.abs(wanted).max()
    time, level = 3 / info.lambda_max, 0.1 * info.lambda_max
    flow = nf.gradient_flow(K, target, time / gain, tolerance=1e-7)
    assert np.abs(flow - nf.gradient_flow(usual, target, time)).max() < 2e-6
    smoothed = nf.ridge(K, target, level * gain, tolerance=1e-7)
    assert np.abs(smoothed - nf.ridge(usual, target, level)).max() < 2e-6
    with pytest.raises(ValueError, match=r"learning_rate must be below 2/lambda_max"):
        nf.gradient_descent(K, target, 10, learning_rate=3 / found.lambda_max)


@pytest.mark.parametrize("weight_var", [1e-6, 1e6])
def test_low_rank(weight_var: float, image: np.ndarray, target: np.ndarray) -> None:
    usual, K = (nf.NTK(stack(8, w), image, device="cpu") for w in (2.0, weight_var))
    for make in (lambda K: nf.nystrom(K, 40), lambda K: nf.randomized_low_rank(K, 20)):
        wanted, got = make(usual), make(K)
        assert got.trace_error == pytest.approx(wanted.trace_error, abs=1e-5)
        z, reference = (nf.gradient_descent(k, target, 10) for k in (got, wanted))
        assert np.abs(z - reference).max() < 1e-4
        of, of_usual = got.estimate_error(K), wanted.estimate_error(usual)
        assert of.frobenius == pytest.approx(of_usual.frobenius, rel=1e-3)
        with pytest.raises(ValueError, match="the product has entries up to"):
            got @ target


def test_products_say_what_the_type_does_not_hold(image: np.ndarray, target: np.ndarray) -> None:
    for layers, weight_var in ((8, 1e-6), (8, 1e6)):
        network = stack(layers, weight_var)
        K, wide = (nf.NTK(network, image, dtype=dtype, device="cpu") for dtype in BARS)
        assert wide.scale == 1.0
        assert wide.scaled is wide
        assert K.scaled.scaled is K.scaled
        for call in (
            lambda K: K @ target,
            lambda K: K.columns([3]),
            lambda K: K.affinity(1, 2),
            lambda K: K.diagonal(),
            lambda K: K.dense(),
        ):
            with pytest.raises(ValueError, match=r"float32 does not hold: use dtype='float64', or K.scaled"):
                call(K)
            wanted, got = call(wide), call(K.scaled)
            assert got.astype(float) * K.scale == pytest.approx(wanted, rel=1e-3, abs=1e-6 * np.abs(wanted).max())


def test_products_where_the_type_holds_them(image: np.ndarray, target: np.ndarray) -> None:
    """Between the two there are kernels whose sums want room, but whose products are numbers of the type."""
    network = stack(16, 1e-2)
    K, wide = (nf.NTK(network, image, dtype=dtype, device="cpu") for dtype in BARS)
    assert K.scale < 1e-30
    product, wanted = K @ target, wide @ target
    assert product.dtype == np.float32
    assert np.abs(product - wanted).max() < 1e-6 * np.abs(wanted).max()
    assert (K @ (target + 0j)).real == pytest.approx(product, rel=1e-6)
    assert np.abs(K.dense() - wide.dense()).max() < 1e-6 * wide.dense().max()


def test_copies_and_pickles_keep_the_scale(image: np.ndarray) -> None:
    K = nf.NTK(stack(8, 1e-6), image[:6, :6], device="cpu")
    K.lambda_max = 1e-47
    for other in (copy.copy(K), copy.deepcopy(K), pickle.loads(pickle.dumps(K))):
        assert other.scale == K.scale
        assert np.array_equal(other.scaled.dense(), K.scaled.dense())
    assert pickle.loads(pickle.dumps(K)).lambda_max == pytest.approx(1e-47, rel=1e-12)
    assert pickle.loads(pickle.dumps(K.scaled)).scale == 1.0
    assert np.array_equal(pickle.loads(pickle.dumps(K.scaled)).dense(), K.scaled.dense())


def test_usual_networks_have_a_scale_of_1(image: np.ndarray) -> None:
    for network in (nf.vanilla_cnn(3, 5), nf.unet(1), nf.autoencoder(2)):
        for unit in (1e-6, 1.0, 255.0, 1e6):
            assert nf.NTK(network, unit * image, device="cpu").scale == 1.0


@pytest.mark.parametrize("weight_var", [1e-30, 1e30])
@pytest.mark.parametrize("dtype", BARS)
def test_what_no_double_holds_is_refused(weight_var: float, dtype: str, image: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"network has a gain that no double holds.*weight_var"):
        nf.NTK(stack(20, weight_var), image, dtype=dtype, device="cpu")


@pytest.mark.parametrize("weight_var", [1e-12, 1e12])
@pytest.mark.parametrize("device", DEVICES)
def test_denoiser(weight_var: float, device: str) -> None:
    y, x = np.mgrid[:20, :24]
    noisy = np.sin(x / 4.0) * np.cos(y / 3.0) + 0.2 * np.random.default_rng(0).standard_normal(x.shape)
    usual, got = (
        nf.denoise_ntk(noisy, 0.2, method=nf.Tiles(stack(3, w), 12, 4), compute=nf.Compute(device=device))
        for w in (2.0, weight_var)
    )
    assert np.abs(got - usual).max() < 1e-4
    usual, got = (
        nf.denoise_ntk(noisy, 0.2, method=nf.WholeImage(stack(3, w), passes=1, steps=30)) for w in (2.0, weight_var)
    )
    assert np.abs(got - usual).max() < 1e-4


@pytest.mark.parametrize("weight_var", [1e-12, 1e12])
@pytest.mark.parametrize("solver", ["lanczos", "iteration"])
def test_inverse_problems(solver: str, weight_var: float) -> None:
    rng = np.random.default_rng(0)
    picture, known = natural(16, 16, 1, 0)[..., 0], rng.random((16, 16)) < 0.6
    y = picture + 0.02 * rng.standard_normal(picture.shape)
    usual, got = (
        nf.restore_ntk(y, nf.Inpainting(known), method=nf.Landweber(stack(3, w), steps=20, solver=solver))
        for w in (2.0, weight_var)
    )
    assert np.abs(got - usual).max() < 1e-3
