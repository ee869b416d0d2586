"""These give the denoiser images of every size, type, unit and number of channels."""

import numpy as np
import pytest

import ntkfast as nf
from denoising import photograph, psnr
from images import IMAGES
from ntkfast.reference import kernel_matrix
from ntkfast.restoration import tile_filter
from ntkfast.restoration.picture import mixing
from ntkfast.restoration.stopping import RULES


def test_gray_colour_axes_types_and_units():
    clean, noisy = photograph("astronaut", slice(0, 40), slice(100, 132), 20)
    out = nf.denoise_ntk(noisy, 20, channel_axis=-1)
    assert out.shape == noisy.shape
    assert out.dtype == np.float64
    first = nf.denoise_ntk(np.moveaxis(noisy, -1, 0), 20, channel_axis=0)
    np.testing.assert_array_equal(np.moveaxis(first, 0, -1), out)
    single = nf.denoise_ntk((noisy / 255).astype(np.float32), 20 / 255, channel_axis=-1)
    assert single.dtype == np.float32
    assert np.abs(255 * single - out).max() < 0.5
    gray = nf.denoise_ntk(noisy.mean(axis=-1), 20 / 3**0.5)
    assert gray.shape == noisy.shape[:2]
    assert psnr(gray, clean.mean(axis=-1)) > psnr(noisy.mean(axis=-1), clean.mean(axis=-1)) + 2
    integers = np.clip(np.round(noisy), 0, 255).astype(np.uint8)
    assert np.abs(nf.denoise_ntk(integers, 20, channel_axis=-1) - out).mean() < 2


@pytest.mark.parametrize("channels", [1, 2, 3, 5, 8])
def test_mixing_is_orthonormal_takes_the_mean_first_and_leaves_the_kernel(channels):
    M = mixing(channels)
    np.testing.assert_allclose(M @ M.T, np.eye(channels), atol=1e-14)
    np.testing.assert_allclose(M[0], channels**-0.5, rtol=1e-14)
    x = IMAGES["noise"](6, 7, channels, 0)
    network = nf.vanilla_cnn(1, 3)
    expected = kernel_matrix(network, x, channel_axis=-1)
    np.testing.assert_allclose(kernel_matrix(network, x @ M.T, channel_axis=-1), expected, atol=1e-12 * expected.max())


def test_many_channels_use_eigenvectors(monkeypatch):
    rng = np.random.default_rng(0)
    y = rng.standard_normal((20, 18, 24))
    results, calls = [], []
    step = tile_filter.BlockLanczos.step
    monkeypatch.setattr(tile_filter.BlockLanczos, "step", lambda self: calls.append(1) or step(self))
    for least in (tile_filter.EIGENVECTORS_FROM, np.inf):  # 24 is more than 256/11
        monkeypatch.setattr(tile_filter, "EIGENVECTORS_FROM", least)
        results.append(nf.denoise_ntk(y, 1.0, channel_axis=-1, method=nf.Tiles(steps=(100, 300))))
        assert bool(calls) == (least == np.inf)
    np.testing.assert_allclose(*results, atol=2e-3 * np.abs(results[0]).max())


@pytest.mark.parametrize("channels", [2, 5, 8])
def test_any_number_of_channels(channels):
    rng = np.random.default_rng(0)
    clean, _ = photograph("chelsea", slice(60, 100), slice(100, 140), 0)
    clean = clean @ rng.dirichlet(np.ones(3), channels).T
    noisy = clean + 20 * rng.standard_normal(clean.shape)
    out, info = nf.denoise_ntk(noisy, 20, channel_axis=-1, return_info=True)
    assert psnr(out, clean) > psnr(noisy, clean) + 6
    # All differences are filtered alike, whichever basis they are in: the order of the channels is nothing.
    turned = nf.denoise_ntk(noisy[..., ::-1], 20, channel_axis=-1, method=nf.Tiles(steps=info.steps))
    np.testing.assert_allclose(turned[..., ::-1], out, atol=0.05)


def test_equal_channels_are_as_one():
    _, noisy = photograph("chelsea", slice(60, 92), slice(100, 132), 20)
    gray = noisy[..., 0]
    out = nf.denoise_ntk(np.repeat(gray[..., None], 3, axis=2), 20, channel_axis=-1, method=nf.Tiles(steps=(60, 80)))
    for n in range(3):
        np.testing.assert_allclose(out[..., n], nf.denoise_ntk(gray, 20, method=nf.Tiles(steps=(60, 80))), atol=0.2)


@pytest.mark.parametrize("scale", [1e-6, 1 / 255, 1e6])
@pytest.mark.parametrize("rule", ["calibrated", "recorrupted", "sure"])
def test_units_do_not_matter(scale, rule):
    """Units must not matter: denoise(c y + b, c sigma) = c denoise(y, sigma) + b."""
    _, noisy = photograph("astronaut", slice(60, 92), slice(180, 212), 20)
    noisy -= 100
    out, info = nf.denoise_ntk(noisy, 20, channel_axis=-1, return_info=True, method=nf.Tiles(stopping=rule))
    scaled, scaled_info = nf.denoise_ntk(
        scale * (noisy + 50), scale * 20, channel_axis=-1, return_info=True, method=nf.Tiles(stopping=rule)
    )
    np.testing.assert_allclose(scaled_info.steps, info.steps, atol=1)
    assert np.abs(scaled / scale - 50 - out).max() < 0.3
    assert np.abs(scaled / scale - 50 - out).mean() < 0.01


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 17)])
def test_every_rule_takes_any_size(shape, rule):
    noisy = np.random.default_rng(0).standard_normal(shape)
    out = nf.denoise_ntk(noisy, 1.0, method=nf.Tiles(stopping=rule))
    assert out.shape == shape
    assert np.isfinite(out).all()


@pytest.mark.parametrize(
    ("scale", "dtype", "message"),
    [
        (1e-19, "float32", "image must have magnitudes of 1e-18 or more for dtype float32, got at most 1e-19"),
        (1e-151, "float64", "image must have magnitudes of 1e-150 or more for dtype float64"),
    ],
)
def test_images_whose_squares_vanish_are_refused(scale, dtype, message):
    image = np.random.default_rng(0).uniform(0.5, 1, (8, 8))
    image /= image.max()
    with pytest.raises(ValueError, match=message):
        nf.denoise_ntk(scale * image, scale / 10, compute=nf.Compute(dtype=dtype))
    scaled = nf.denoise_ntk(100 * scale * image, 10 * scale, compute=nf.Compute(dtype=dtype))
    np.testing.assert_allclose(
        scaled / (100 * scale), nf.denoise_ntk(image, 0.1, compute=nf.Compute(dtype=dtype)), atol=1e-5
    )


@pytest.mark.parametrize("dtype", [">f4", "<f4"])
def test_single_precision_in_either_byte_order(dtype):
    noisy = np.random.default_rng(0).standard_normal((12, 12)).astype(dtype)
    assert nf.denoise_ntk(noisy, 1.0, method=nf.Tiles(steps=3)).dtype == np.float32


def test_half_precision():
    noisy = (photograph("astronaut", slice(60, 84), slice(180, 208), 20)[1] / 255).astype(np.float16)
    out = nf.denoise_ntk(noisy, 0.1, channel_axis=-1)
    assert out.dtype == np.float32
    np.testing.assert_array_equal(out, nf.denoise_ntk(noisy.astype(np.float32), 0.1, channel_axis=-1))


def test_images_in_any_memory_order_are_only_read():
    _, noisy = photograph("astronaut", slice(60, 84), slice(180, 208), 20)
    options = {"channel_axis": -1, "method": nf.Tiles(steps=30)}
    out = nf.denoise_ntk(noisy, 20, **options)
    padded = np.zeros((48, 56, 6))
    padded[::2, ::2, ::2] = noisy
    swapped = np.ascontiguousarray(noisy[::-1]).astype(">f8")[::-1]
    for same in (np.asfortranarray(noisy), padded[::2, ::2, ::2], swapped):
        same.flags.writeable = False
        before = same.copy()
        result = nf.denoise_ntk(same, 20, **options)
        np.testing.assert_array_equal(result, out)
        np.testing.assert_array_equal(same, before)
        assert result.flags.writeable
        assert not np.shares_memory(result, same)
    untouched = nf.denoise_ntk(noisy, 0, channel_axis=-1)
    np.testing.assert_array_equal(untouched, noisy)
    assert not np.shares_memory(untouched, noisy)


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (40, 1), (3, 17), (16, 16), (17, 33)])
def test_any_size(shape):
    noisy = 100 + 10 * np.random.default_rng(0).standard_normal(shape)
    out = nf.denoise_ntk(noisy, 10)
    assert out.shape == shape
    assert np.isfinite(out).all()
    assert out.std() <= noisy.std() + 1e-9


def test_flat_images_stay_as_they_are():
    np.testing.assert_allclose(nf.denoise_ntk(np.full((20, 20), 7.0)), 7.0)
    np.testing.assert_allclose(nf.denoise_ntk(np.full((20, 20), 7.0), 3.0), 7.0)
    noisy = np.random.default_rng(0).standard_normal((20, 20))
    np.testing.assert_array_equal(nf.denoise_ntk(noisy, 0), noisy)


@pytest.mark.parametrize(
    ("image", "error"),
    [
        (np.zeros((0, 5)), ValueError),
        (np.full((5, 5), np.nan), ValueError),
        (np.full((5, 5), np.inf), ValueError),
        (np.ones((5, 5), complex), TypeError),
        (np.array([["a", "b"]]), TypeError),
        (np.ones((5, 5, 3)), ValueError),
        (np.ones(5), ValueError),
        (None, TypeError),
    ],
)
def test_bad_images(image, error):
    with pytest.raises(error, match=r"image (must|has shape)"):
        nf.denoise_ntk(image)


@pytest.mark.parametrize("shape", [(40, 37), (9, 31), (1, 1), (16, 16, 3)])
@pytest.mark.parametrize("network", [nf.unet(2), nf.autoencoder(1), nf.unet(1, padding="circular")], ids=repr)
def test_networks_of_several_resolutions_take_images_of_any_size(network, shape):
    clean = np.add.outer(np.arange(shape[0]), np.arange(shape[1])) / 40.0
    clean = clean if len(shape) == 2 else clean[:, :, None] * np.ones(shape[2])
    noisy = clean + 0.1 * np.random.default_rng(0).normal(size=shape)
    out = nf.denoise_ntk(
        noisy, 0.1, channel_axis=-1 if len(shape) == 3 else None, method=nf.Tiles(network=network, size=14)
    )
    assert out.shape == shape
    assert np.isfinite(out).all()
    if min(shape[:2]) > 1:
        assert np.mean((out - clean) ** 2) < 0.6 * np.mean((noisy - clean) ** 2)


@pytest.mark.parametrize(
    "method", [nf.Tiles(steps=3), nf.WholeImage(steps=3), nf.WholeImage(landmarks=39, steps=3)], ids=repr
)
@pytest.mark.parametrize("value", [1e-15, 0.3])
def test_the_rounding_of_a_mean_is_no_picture(method, value):
    """Less its mean, such an image is the mean's rounding: no picture, and not one that is too dark."""
    image = np.full((12, 13), value)
    result = nf.denoise_ntk(image, sigma=value / 100, method=method)
    assert np.abs(result - image).max() <= 1e-14 * value
