"""The denoiser: what it removes, how it stops, its tiles, and what it refuses."""

import itertools

import numpy as np
import pytest
from skimage import data, restoration

import ntkfast as nf
from images import IMAGES
from ntkfast.stopping import STEPS
from ntkfast.tiles import Tiling


def psnr(image, clean, peak=255.0):
    return 10 * np.log10(peak**2 / np.mean((image - clean) ** 2))


def photograph(name, rows, cols, sigma, seed=0):
    """A crop of a colour photograph, 0 to 255, and the same with noise."""
    clean = getattr(data, name)()[rows, cols].astype(float)
    return clean, clean + sigma * np.random.default_rng(seed).standard_normal(clean.shape)


@pytest.mark.parametrize("sigma", [15, 25, 50])
def test_the_rule_loses_little_against_the_best_time(sigma):
    """On a picture that no constant was tuned on: against the best of the rule's own grid, one time for each pass."""
    clean, noisy = photograph("chelsea", slice(60, 156), slice(100, 196), sigma)
    out, info = nf.denoise_ntk(noisy, sigma, channel_axis=-1, full_output=True)
    by_rule = psnr(out, clean)
    best = -np.inf
    for factor in (0.25, 0.5, 0.7, 1, 1.4, 2, 4):  # around the rule's choice, both passes together
        steps = [max(1, round(factor * t)) for t in info.steps]
        best = max(best, psnr(nf.denoise_ntk(noisy, sigma, channel_axis=-1, steps=steps), clean))
    assert by_rule > psnr(noisy, clean) + 4
    assert by_rule > best - 0.3
    # The best lies inside what was tried, so the comparison means something: far more and far fewer steps are worse.
    for factor in (0.03, 60):
        steps = [max(1, round(factor * t)) for t in info.steps]
        assert psnr(nf.denoise_ntk(noisy, sigma, channel_axis=-1, steps=steps), clean) < best - 0.3


def test_better_than_non_local_means_with_the_level_estimated():
    clean, noisy = photograph("coffee", slice(100, 196), slice(200, 296), 25)
    out, info = nf.denoise_ntk(noisy, channel_axis=-1, full_output=True)
    assert info.sigma_estimated
    assert info.sigma == pytest.approx(25, rel=0.1)
    means = restoration.denoise_nl_means(
        noisy / 255, patch_size=5, patch_distance=7, h=0.6 * 25 / 255, sigma=25 / 255, channel_axis=-1, fast_mode=True
    )
    assert psnr(out, clean) > psnr(255 * means, clean)


def test_refinement_helps():
    clean, noisy = photograph("astronaut", slice(60, 124), slice(180, 244), 25)
    once, twice = (psnr(nf.denoise_ntk(noisy, 25, channel_axis=-1, refine=n), clean) for n in (0, 1))
    assert twice > once + 0.1


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


def test_same_bits_for_the_same_seed():
    _, noisy = photograph("astronaut", slice(0, 40), slice(100, 132), 20)
    results = [nf.denoise_ntk(noisy, 20, channel_axis=-1, seed=seed, threads=2) for seed in (3, 3)]
    np.testing.assert_array_equal(*results)


def test_given_steps_match_the_plain_iteration():
    """One tile, one pass: z_t = (I - (I - eta Theta)^t) y on the tile less its mean."""
    y = IMAGES["noise"](12, 10, 2, 0)
    out, info = nf.denoise_ntk(
        y, 1.0, channel_axis=-1, steps=9, refine=0, chroma_time=1, full_output=True, dtype="float64"
    )
    mean = y.mean(axis=(0, 1))
    K = nf.NTK(info.network, y - mean, dtype="float64")
    z = nf.gradient_descent(K, y - mean, 9, info.learning_rate[0], method="iteration")
    assert info.tiles == 1
    assert info.steps == (9,)
    assert np.abs(out - (z + mean)).max() < 2e-3  # the denoiser stops Lanczos at 1e-3


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


def test_no_seams_on_a_smooth_image():
    """The gradient of a denoised ramp is no larger on the borders of the tiles than elsewhere."""
    y, x = np.mgrid[:96, :96]
    smooth = 100 + 40 * np.sin(x / 30) + 30 * np.cos(y / 25)
    noisy = smooth + 5 * np.random.default_rng(1).standard_normal(smooth.shape)
    error = nf.denoise_ntk(noisy, 5, tile_size=16, tile_overlap=8) - smooth
    jumps = np.abs(np.diff(error, axis=1)).mean(axis=0)  # between columns x and x + 1
    border = np.zeros(95, bool)
    border[7::8] = True
    assert jumps[border].mean() < 1.25 * jumps[~border].mean()


def test_progress_reaches_one_and_can_stop():
    _, noisy = photograph("astronaut", slice(0, 40), slice(100, 132), 20)
    seen = []
    nf.denoise_ntk(noisy, 20, channel_axis=-1, progress=seen.append)
    assert seen[-1] == 1.0
    assert seen == sorted(seen)
    assert len(seen) >= 2  # one for each pass

    def stop(fraction):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        nf.denoise_ntk(noisy, 20, channel_axis=-1, progress=stop)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"sigma": -1}, ValueError, "sigma must be >= 0, got -1"),
        ({"sigma": float("nan")}, ValueError, "sigma must be finite"),
        ({"sigma": "5"}, TypeError, "sigma must be a real number, got '5'"),
        ({"channel_axis": -1}, ValueError, "image must have 3 dimensions when channel_axis is given"),
        ({"tile_size": 0}, ValueError, "tile_size must be at least 1, got 0"),
        ({"tile_overlap": 16}, ValueError, "tile_overlap must be below tile_size = 16, got 16"),
        ({"tile_overlap": -1}, ValueError, "tile_overlap must be at least 0, got -1"),
        ({"refine": -1}, ValueError, "refine must be at least 0"),
        ({"steps": -3}, ValueError, "steps must be at least 0, got -3"),
        ({"steps": [1, 2, 3]}, ValueError, "steps must be one integer or 2, one for each pass, got 3"),
        ({"steps": "12"}, TypeError, "steps must be an integer"),
        ({"seed": -1}, ValueError, "seed must be at least 0"),
        ({"network": "vanilla"}, TypeError, "network must be an ntkfast.Network"),
        ({"network": nf.Network([nf.Conv(3, trainable=False)])}, ValueError, "trainable"),
        ({"dtype": "float16"}, ValueError, "dtype must be"),
        ({"threads": 0}, ValueError, "threads must be at least 1"),
        ({"progress": 1}, TypeError, "progress must be callable"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        nf.denoise_ntk(np.random.default_rng(0).standard_normal((20, 20)), **arguments)


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
    with pytest.raises(error, match="image must"):
        nf.denoise_ntk(image)


@pytest.mark.parametrize(("size", "overlap"), [(16, 8), (16, 0), (5, 4), (40, 3), (1, 0)])
def test_tiles_cover_and_blend_to_the_same_image(size, overlap):
    images = np.random.default_rng(0).standard_normal((2, 23, 31, 3))
    tiling = Tiling(images.shape[:3], size, overlap)
    sums = tiling.accumulator(3)
    for start in range(0, tiling.count, 7):
        which = slice(start, start + 7)
        tiling.add(sums, tiling.extract(images, which), which)
    np.testing.assert_allclose(Tiling.blend(sums), images, atol=1e-12)


def test_the_grid_of_steps_is_increasing():
    assert STEPS[0] == 1
    assert all(b > a for a, b in itertools.pairwise(STEPS))


@pytest.mark.parametrize("shape", [(40, 37), (9, 31), (1, 1), (16, 16, 3)])
@pytest.mark.parametrize("network", [nf.unet(2), nf.autoencoder(1), nf.unet(1, padding="circular")], ids=repr)
def test_networks_of_several_resolutions_take_images_of_any_size(network, shape):
    clean = np.add.outer(np.arange(shape[0]), np.arange(shape[1])) / 40.0
    clean = clean if len(shape) == 2 else clean[:, :, None] * np.ones(shape[2])
    noisy = clean + 0.1 * np.random.default_rng(0).normal(size=shape)
    out = nf.denoise_ntk(noisy, 0.1, network=network, tile_size=14, channel_axis=-1 if len(shape) == 3 else None)
    assert out.shape == shape
    assert np.isfinite(out).all()
    if min(shape[:2]) > 1:
        assert np.mean((out - clean) ** 2) < 0.6 * np.mean((noisy - clean) ** 2)
