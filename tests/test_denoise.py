"""These test the denoiser: what it removes, how it stops, its tiles, and what it refuses."""

import itertools
import subprocess
import sys

import numpy as np
import pytest
from bench.quality.methods import non_local_means
from skimage import data
from skimage.metrics import peak_signal_noise_ratio

import ntkfast as nf
from images import IMAGES
from ntkfast import _choices
from ntkfast._choices import OVERLAP, SIZE
from ntkfast.engine import memory
from ntkfast.engine.cpu import CpuBackend
from ntkfast.reference import kernel_matrix
from ntkfast.restoration import tile_filter, whole_filter
from ntkfast.restoration.methods import METHODS
from ntkfast.restoration.picture import LEAST_LEVEL, _without_bad_pixels, mixing
from ntkfast.restoration.stopping import RISKS, RULES, STEPS
from ntkfast.restoration.tiles import Tiling


def psnr(image, clean, peak=255.0):
    return peak_signal_noise_ratio(clean, image, data_range=peak)


def photograph(name, rows, cols, sigma, seed=0):
    """Return a crop of a colour photograph, 0 to 255, and the same with noise."""
    clean = getattr(data, name)()[rows, cols].astype(float)
    return clean, clean + sigma * np.random.default_rng(seed).standard_normal(clean.shape)


@pytest.mark.parametrize(("sigma", "told"), [(10, False), (15, True), (25, False), (50, True)])
def test_the_rule_loses_little_against_the_best_time(sigma, told):
    """No constant was tuned on the picture; the best is that of the rule's own grid, one time for each pass."""
    clean, noisy = photograph("chelsea", slice(60, 124), slice(100, 164), sigma)
    out, info = nf.denoise_ntk(noisy, sigma if told else None, channel_axis=-1, return_info=True)
    by_rule = psnr(out, clean)
    best = -np.inf
    for factor in (0.25, 0.5, 0.7, 1, 1.4, 2, 4):  # around the rule's choice, both passes together
        steps = [max(1, round(factor * t)) for t in info.steps]
        best = max(best, psnr(nf.denoise_ntk(noisy, sigma, channel_axis=-1, method=nf.Tiles(steps=steps)), clean))
    assert by_rule > psnr(noisy, clean) + 4
    assert by_rule > best - 0.3
    # The best lies inside what was tried, so the comparison means something: far more and far fewer steps are worse.
    for factor in (0.03, 60):
        steps = [max(1, round(factor * t)) for t in info.steps]
        assert psnr(nf.denoise_ntk(noisy, sigma, channel_axis=-1, method=nf.Tiles(steps=steps)), clean) < best - 0.3


@pytest.fixture(scope="module")
def held_out_crop():
    """Return a noisy crop that no constant was tuned on, the same without noise, and the PSNR at the best time."""
    clean, noisy = photograph("chelsea", slice(60, 108), slice(100, 148), 25)
    times = itertools.product((25, 50, 75, 100, 150), (150, 250, 350, 500, 700))
    best = max(psnr(nf.denoise_ntk(noisy, 25, channel_axis=-1, method=nf.Tiles(steps=steps)), clean) for steps in times)
    return noisy, clean, best


# These are decibels, against the best time.
LOSS = {"calibrated": 0.3, "recorrupted": 0.1, "sure": 0.1, "held_out": 0.8}


def test_rules_have_their_names():
    """Names and functions stand in two modules."""
    assert {"calibrated", *RISKS} == set(RULES)


@pytest.mark.parametrize("rule", RULES)
def test_each_rule_loses_little(held_out_crop, rule):
    noisy, clean, best = held_out_crop
    out, info = nf.denoise_ntk(noisy, 25, channel_axis=-1, return_info=True, method=nf.Tiles(stopping=rule))
    assert info.stopping == rule
    assert psnr(out, clean) > best - LOSS[rule]
    assert best > psnr(noisy, clean) + 5


@pytest.mark.parametrize("contrast", [0, 0.25, 1])
def test_gray_pictures_lose_little(contrast):
    """Flat ones are among them, for which every step is too much: a few per cent of the noise's variance are left."""
    clean, _ = photograph("chelsea", slice(60, 108), slice(100, 148), 0)
    clean = 100 + contrast * (clean.mean(axis=-1) - 100)
    noisy = clean + 25 * np.random.default_rng(0).standard_normal(clean.shape)
    times = itertools.product((1, 4, 16, 32), (1, 4, 16, 64, 128, 256))
    best = max(psnr(nf.denoise_ntk(noisy, 25, method=nf.Tiles(steps=steps)), clean) for steps in times)
    assert psnr(nf.denoise_ntk(noisy, 25), clean) > best - 0.6


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({}, "sure"),
        ({"method": nf.WholeImage()}, "sure"),
        ({"method": nf.Tiles(stopping="calibrated")}, "calibrated"),
        ({"method": nf.Tiles(steps=5, stopping="sure")}, "given"),
        ({"sigma": 0}, "none"),
    ],
)
def test_which_rule_is_used(options, rule):
    noisy = IMAGES["noise"](9, 9, 3, 0)
    _, info = nf.denoise_ntk(noisy, channel_axis=-1, return_info=True, **{"sigma": 1.0} | options)
    assert info.stopping == rule
    assert type(info.method) is type(options.get("method", nf.Tiles()))
    assert len(info.steps) == len(info.learning_rate) == (0 if rule == "none" else info.passes)


def test_better_than_non_local_means_with_the_level_estimated():
    clean, noisy = photograph("coffee", slice(100, 196), slice(200, 296), 25)
    out, info = nf.denoise_ntk(noisy, channel_axis=-1, return_info=True)
    assert info.noise.estimated
    assert info.noise.sigma == info.level == pytest.approx(25, rel=0.03)
    assert psnr(out, clean) > psnr(non_local_means(noisy, 25), clean)


@pytest.mark.parametrize(("name", "sigma"), [("coins", 2), ("coins", 3), ("page", 2), ("page", 3), ("gravel", 5)])
def test_gray_texture_with_little_noise_and_the_level_estimated(name, sigma):
    """Levels by wavelets blurred the page by 1.8 dB at sigma 2, and gained less than half on gravel."""
    clean = getattr(data, name)()[:96, :96].astype(float)
    noisy = clean + sigma * np.random.default_rng(0).standard_normal(clean.shape)
    assert psnr(nf.denoise_ntk(noisy), clean) > psnr(noisy, clean) + 0.4


def test_refinement_helps():
    clean, noisy = photograph("astronaut", slice(60, 124), slice(180, 244), 25)
    once, twice = (psnr(nf.denoise_ntk(noisy, 25, channel_axis=-1, method=nf.Tiles(passes=n)), clean) for n in (1, 2))
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
    results = [nf.denoise_ntk(noisy, 20, channel_axis=-1, rng=seed, compute=nf.Compute(threads=2)) for seed in (3, 3)]
    np.testing.assert_array_equal(*results)


def test_given_steps_match_the_plain_iteration():
    """One tile and one pass give z_t = (I - (I - eta Theta)^t) y on the tile less its mean."""
    y = IMAGES["noise"](12, 10, 2, 0)
    out, info = nf.denoise_ntk(
        y,
        1.0,
        channel_axis=-1,
        return_info=True,
        method=nf.Tiles(steps=9, passes=1, chroma_time=1),
        compute=nf.Compute(dtype="float64"),
    )
    mean = y.mean(axis=(0, 1))
    K = nf.NTK(info.method.network, y - mean, channel_axis=-1, dtype="float64")
    z = nf.gradient_descent(K, y - mean, 9, info.learning_rate[0], method="iteration")
    assert info.tiles == 1
    assert info.steps == (9,)
    assert np.abs(out - (z + mean)).max() < 2e-3  # the denoiser stops Lanczos at 1e-3


def descent(K, y, steps, rate):
    """Return z_t of float64 columns y (d, n), by the eigenvectors of the dense K."""
    values, vectors = np.linalg.eigh(K)
    return vectors @ ((1 - (1 - rate * values) ** steps)[:, None] * (vectors.T @ y))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("chroma_time", [1 / 3, 4])
@pytest.mark.parametrize(
    ("method", "tolerance"),
    [("tiles", 2e-3), ("exact", 2e-3), ("eigenvectors", 1e-9)],  # 1e-3 is the tolerance of Lanczos, in each pass
)
def test_two_weighted_passes_match_the_dense_formula(method, tolerance, chroma_time, channels, monkeypatch):
    """The formula is z_t = W^-1/2 f_t(W^1/2 Theta W^1/2) W^1/2 y for one tile, with another time for differences.

    W = level^2/sigma^2 with 1/level^2 the mean of 1/sigma^2, y less its weighted mean, eta = 1/trace(W Theta), and
    Theta from y, then from the result, less their plain means.
    """
    y = IMAGES["natural"](12, 10, channels, 0) + 0.1 * IMAGES["noise"](12, 10, channels, 0)
    sigma = np.random.default_rng(1).uniform(0.1, 0.2, (12, 10))  # no pixel has twice the level of others
    steps = (20, 30)
    monkeypatch.setattr(tile_filter, "EIGENVECTORS_FROM", 0 if method == "eigenvectors" else np.inf)
    options = {"steps": steps, "chroma_time": chroma_time}
    chosen = nf.WholeImage(**options) if method == "exact" else nf.Tiles(size=14, **options)
    compute = nf.Compute(dtype="float64")
    out, info = nf.denoise_ntk(y, sigma, channel_axis=-1, method=chosen, compute=compute, return_info=True)
    level = np.mean(1 / sigma**2) ** -0.5
    w = (level / sigma.reshape(-1, 1)) ** 2
    root = np.sqrt(w)
    mean = (w * y.reshape(-1, channels)).sum(axis=0) / w.sum()
    columns = root * (y.reshape(-1, channels) - mean)
    guide = y
    for t, rate in zip(steps, info.learning_rate, strict=True):
        Theta = kernel_matrix(info.method.network, guide - guide.mean(axis=(0, 1)), channel_axis=-1)
        K = root * Theta * root.T
        assert rate == pytest.approx(1 / np.trace(K), rel=1e-6 if guide is y else tolerance)
        common = columns.mean(axis=1, keepdims=True)
        z = descent(K, common, t, rate) + descent(K, columns - common, round(chroma_time * t), rate)
        guide = (z / root + mean).reshape(y.shape)
    assert info.level == pytest.approx(level)
    assert np.linalg.norm(out - guide) < tolerance * np.linalg.norm(y - mean)


def test_landmarks_from_a_quarter_of_the_pixels_are_the_exact_kernel():
    y = IMAGES["noise"](12, 10, 1, 0)[..., 0]
    exact = nf.denoise_ntk(y, 0.5, method=nf.WholeImage(steps=9))
    for landmarks, used in ((29, 29), (30, None), (500, None)):
        got, info = nf.denoise_ntk(y, 0.5, return_info=True, method=nf.WholeImage(landmarks=landmarks, steps=9))
        assert info.method.landmarks == used
        assert np.array_equal(got, exact) == (used is None)


@pytest.mark.parametrize(("size", "overlap"), [(1, 0), (4, 3), (11, 10), (20, 10)])
def test_small_tiles_overlap_by_all_but_one_pixel(size, overlap):
    y = IMAGES["noise"](20, 20, 1, 0)[..., 0]
    one, info = nf.denoise_ntk(y, 0.5, return_info=True, method=nf.Tiles(size=size, steps=5))
    assert (info.method.size, info.method.overlap) == (size, overlap)
    np.testing.assert_array_equal(one, nf.denoise_ntk(y, 0.5, method=nf.Tiles(size=size, overlap=overlap, steps=5)))


@pytest.mark.parametrize(("shape", "network"), [((16, 13, 3), None), ((14, 16), None), ((12, 15), nf.unet(1))])
def test_the_whole_image_is_one_tile_and_may_have_all_pixels_as_landmarks(shape, network):
    y = 100 * IMAGES["natural"](*shape[:2], 3, 0) + 10 * IMAGES["noise"](*shape[:2], 3, 0)
    y = y if len(shape) == 3 else y[..., 0]
    options, axis = {"steps": (40, 60), "network": network}, -1 if len(shape) == 3 else None
    tile, one = nf.denoise_ntk(y, 10, channel_axis=axis, method=nf.Tiles(**options), return_info=True)
    scale = np.linalg.norm(y - y.mean(axis=(0, 1)))
    for landmarks in (None, 256):  # with all pixels as landmarks the exact kernel, too
        method = nf.WholeImage(landmarks=landmarks, **options)
        whole, info = nf.denoise_ntk(y, 10, channel_axis=axis, method=method, return_info=True)
        assert np.linalg.norm(whole - tile) < 1e-3 * scale  # the tolerance of Lanczos
        assert info.learning_rate == pytest.approx(one.learning_rate, rel=1e-4)
        assert (info.method.landmarks, info.tiles, one.tiles) == (None, 1, 1)
    few = nf.denoise_ntk(y, 10, channel_axis=axis, method=nf.WholeImage(landmarks=5, **options))
    assert np.linalg.norm(few - tile) > 1e-2 * scale


def test_every_method_is_offered():
    assert all(
        name.replace("-", "") == kind.__name__.lower() for name, kind in zip(_choices.METHODS, METHODS, strict=True)
    )


@pytest.mark.parametrize(
    "method", [nf.Tiles(), nf.WholeImage(steps=50), nf.WholeImage(landmarks=100, steps=50)], ids=repr
)
def test_a_constant_noise_map_is_the_level(method):
    _, noisy = photograph("astronaut", slice(60, 84), slice(180, 208), 20)
    options = {"channel_axis": -1, "method": method, "return_info": True}
    out, info = nf.denoise_ntk(noisy, 20, **options)
    same, map_info = nf.denoise_ntk(noisy, np.full(noisy.shape[:2], 20), **options)
    assert map_info.level == pytest.approx(info.level)
    assert map_info.steps == info.steps
    # With weights the low-rank filter comes from Lanczos, which stops at 1e-3, and without from the eigenvectors.
    relative = 1e-3 if getattr(method, "landmarks", None) else 1e-5
    assert np.linalg.norm(same - out) < relative * np.linalg.norm(noisy - noisy.mean(axis=(0, 1)))


def test_a_noise_map_beats_every_single_level():
    levels = np.where(np.arange(64) < 32, 8.0, 40.0) * np.ones((64, 1))
    clean, _ = photograph("chelsea", slice(60, 124), slice(100, 164), 0)
    noisy = clean + levels[..., None] * np.random.default_rng(0).standard_normal(clean.shape)
    single = max(psnr(nf.denoise_ntk(noisy, s, channel_axis=-1), clean) for s in (8, 18, 25, 29, 35, 40))
    for rule in ("calibrated", "recorrupted"):
        assert (
            psnr(nf.denoise_ntk(noisy, levels, channel_axis=-1, method=nf.Tiles(stopping=rule)), clean) > single + 1.4
        )


def test_one_pixel_without_noise_does_not_stop_the_others():
    """Its level counts as a share of the image's, so that the step size stays that of the others."""
    _, noisy = photograph("astronaut", slice(60, 84), slice(180, 208), 20)
    levels = np.full(noisy.shape[:2], 20.0)
    levels[5, 6] = 1e-3 * LEAST_LEVEL
    out, info = nf.denoise_ntk(noisy, levels, channel_axis=-1, return_info=True)
    assert np.isfinite(out).all()
    assert info.level == pytest.approx(20, rel=0.1)
    far = nf.denoise_ntk(noisy, 20, channel_axis=-1)[16:]
    assert np.abs(out[16:] - far).mean() < 0.3 * np.abs(noisy[16:] - far).mean()


@pytest.mark.parametrize("value", [1e3, 1e6])
def test_dead_pixels_by_the_map(value):
    """Any large level marks them; the others lose little."""
    clean, noisy = photograph("chelsea", slice(60, 124), slice(100, 164), 25)
    rng = np.random.default_rng(1)
    dead = rng.random(noisy.shape[:2]) < 0.05
    broken = np.where(dead[..., None], rng.uniform(0, 255, noisy.shape), noisy)
    out = nf.denoise_ntk(broken, np.where(dead, value, 25.0), channel_axis=-1)
    assert psnr(out, clean) > psnr(nf.denoise_ntk(noisy, 25, channel_axis=-1), clean) - 1


def test_noisier_pixels_are_replaced_in_the_first_guide():
    guide = np.random.default_rng(0).standard_normal((2, 12, 14, 3))
    levels = np.full((2, 12, 14, 1), 0.3)
    assert _without_bad_pixels(guide, levels**-2) is guide
    smooth = levels * 1.2 ** np.arange(14)[:, None]
    assert _without_bad_pixels(guide, smooth**-2) is guide
    levels[1, 5, 6] = 300.0
    out = _without_bad_pixels(guide, levels**-2)
    around = np.ones((5, 5), dtype=bool)
    around[2, 2] = False
    np.testing.assert_allclose(out[1, 5, 6], guide[1, 3:8, 4:9][around].mean(axis=0), atol=1e-5)
    out[1, 5, 6] = guide[1, 5, 6]
    np.testing.assert_array_equal(out, guide)


# ------------------------------------------------------------------------------------------- noise that grows: the gain


def test_counts_need_the_gain():
    """A picture that falls off to one side, in counts: better than with any one Gaussian level."""
    peak, better = 20, 0.15
    clean, _ = photograph("chelsea", slice(60, 124), slice(100, 164), 0)
    clean *= np.linspace(0.05, 1, 64)[:, None] * peak / 255
    counts = np.random.default_rng(0).poisson(clean)
    out, info = nf.denoise_ntk(counts, noise=nf.PoissonGaussian(1), channel_axis=-1, return_info=True)
    assert (info.level, info.noise) == (1.0, nf.PoissonGaussian(1))
    levels = np.sqrt(clean.mean()) * np.array([0.5, 0.7, 1, 1.4])
    gaussian = max(psnr(nf.denoise_ntk(counts, s, channel_axis=-1), clean, peak) for s in levels)
    assert psnr(out, clean, peak) > gaussian + better
    assert out.mean() == pytest.approx(counts.mean(), rel=0.02)


@pytest.mark.parametrize("mean", [1, 5, 50])
def test_the_mean_of_counts_is_kept(mean):
    """The mean is kept to 1.3 standard errors: blending gives the image's border, where tiles are fewer, more weight.

    The plain inverse of the root would lose 1/4 count; what noise is left adds a quarter of its variance.
    """
    counts = np.random.default_rng(0).poisson(mean, (64, 64))
    out = nf.denoise_ntk(counts, noise=nf.PoissonGaussian(1), method=nf.Tiles(stopping="recorrupted"))
    assert out.mean() == pytest.approx(counts.mean(), abs=1.3 * np.sqrt(mean / counts.size))
    assert out.std() < 0.2 * counts.std()


def test_gain_and_gaussian_part_in_any_units():
    clean, _ = photograph("chelsea", slice(60, 100), slice(100, 140), 0)
    rng = np.random.default_rng(0)
    noisy = 0.5 * rng.poisson(clean / 10) + 2 * rng.standard_normal(clean.shape)
    out = nf.denoise_ntk(noisy, noise=nf.PoissonGaussian(0.5, 2), channel_axis=-1)
    assert psnr(out, clean / 20, 12) > psnr(noisy, clean / 20, 12) + 5
    np.testing.assert_allclose(
        nf.denoise_ntk(100 * noisy, noise=nf.PoissonGaussian(50, 200), channel_axis=-1), 100 * out, rtol=1e-4
    )


# --------------------------------------------------------------------------------------------------------- the channels


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


# ---------------------------------------------------------------------------------------------------- what goes through


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


@pytest.mark.parametrize("sigma", [1e-9, 1e-200])
def test_hardly_any_noise(sigma):
    noisy = np.random.default_rng(0).standard_normal((20, 20))
    for level in (sigma, np.full(noisy.shape, sigma)):
        for rule, tolerance in (
            ("calibrated", 1e-5),
            ("recorrupted", 1e-3),
            ("sure", 1e-3),
        ):  # whose grids of steps end
            assert np.abs(nf.denoise_ntk(noisy, level, method=nf.Tiles(stopping=rule)) - noisy).max() < tolerance


def test_a_bright_pixel_spoils_only_its_surroundings():
    """It makes the step size, one for all tiles, so small that the best times lie beyond the rules' first grid."""
    clean, noisy = photograph("chelsea", slice(60, 124), slice(100, 164), 20)
    star = noisy.copy()
    star[10, 30] += 1e6
    far = slice(30, None)
    plain, with_star = (psnr(nf.denoise_ntk(y, 20, channel_axis=-1)[far], clean[far]) for y in (noisy, star))
    assert with_star > plain - 0.3


def test_sigma_may_be_an_array_of_no_dimension():
    noisy = np.random.default_rng(0).standard_normal((20, 20))
    np.testing.assert_array_equal(nf.denoise_ntk(noisy, np.array(1.0)), nf.denoise_ntk(noisy, 1.0))


def test_pictures_without_noise_stay_as_they_are():
    for shape in ((24, 24, 3), (1, 1, 3)):
        out, info = nf.denoise_ntk(np.full(shape, 99.0), channel_axis=-1, return_info=True)
        assert (info.noise.sigma, info.stopping, info.steps) == (0.0, "none", ())
        np.testing.assert_array_equal(out, 99.0)


@pytest.mark.parametrize("shape", [(1, 400), (400, 1)])
def test_the_level_of_a_single_row_or_column_is_estimated(shape):
    noisy = 100 + 10 * np.random.default_rng(0).standard_normal(shape)
    out, info = nf.denoise_ntk(noisy, return_info=True)
    assert info.noise.sigma == pytest.approx(10, rel=0.1)
    assert out.std() < 0.3 * noisy.std()


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


def test_crops_of_the_rule_hold_whole_tiles(monkeypatch):
    """Crops of 12 pixels would not fit a network that needs multiples of 8."""
    monkeypatch.setattr("ntkfast.restoration.picture.RULE_CROP_SIZE", 12)
    noisy = np.random.default_rng(0).standard_normal((56, 56))
    _, info = nf.denoise_ntk(noisy, 1.0, return_info=True, method=nf.Tiles(network=nf.autoencoder(3), passes=1))
    assert (info.stopping, info.method.size) == ("sure", 16)


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


def jumps_of_the_error(channels, passes, sigma):
    """Measure jumps on a smooth picture: brightness, then colours, along both axes, by place in the tiles' grid."""
    y, x, c = np.mgrid[:112, :112, :channels]
    smooth = 100 + 40 * np.sin(x / 30 + c) + 30 * np.cos(y / 25 - c)
    noisy = smooth + sigma * np.random.default_rng(1).standard_normal(smooth.shape)
    out = nf.denoise_ntk(noisy, sigma, channel_axis=-1, method=nf.Tiles(passes=passes))
    stride = SIZE - OVERLAP
    inner = slice(SIZE, SIZE + 78)  # without the image's own borders, whole periods
    error = (out - smooth) @ mixing(channels).T  # brightness and colours
    for plane in np.moveaxis(error, -1, 0):
        for picture in (plane, plane.T):
            jumps = np.abs(np.diff(picture, axis=1)).mean(axis=0)[inner]  # between columns x and x + 1
            yield jumps.reshape(-1, stride).mean(axis=0)


@pytest.mark.parametrize("sigma", [5, 25])
@pytest.mark.parametrize(("channels", "passes"), [(1, 2), (3, 1), (3, 2)])
def test_no_lines_on_a_smooth_image(channels, passes, sigma):
    """The error jumps no farther at some places of the tiles' grid than at others, by default; of colours, hardly.

    Colours are trained for less time, so that slopes in them lag behind at the borders, where tiles differ.
    """
    for n, jumps in enumerate(jumps_of_the_error(channels, passes, sigma)):
        bound = 1.25 * np.median(jumps) if n < 2 else np.median(jumps) + 0.06 * sigma
        assert jumps.max() < bound


def test_a_plain_grid_would_leave_lines(monkeypatch):
    monkeypatch.setattr("ntkfast.restoration.tiles._shifts", lambda rows, cols, most: np.zeros((rows, cols, 2), int))
    for jumps in jumps_of_the_error(1, 2, 25):
        assert jumps.max() > 1.5 * np.median(jumps)


@pytest.mark.parametrize(
    ("options", "tiles", "calls"),
    [
        ({}, 81, 4 + 6),
        ({"method": nf.Tiles(overlap=12, stopping="calibrated")}, 13**2, 2 * 3),
        ({"method": nf.Tiles(size=8, overlap=4, passes=1)}, 15**2, 4 + 8),
        ({"method": nf.Tiles(size=40, overlap=0, steps=5, passes=3)}, 4, 3),
        ({"method": nf.WholeImage(landmarks=20, stopping="sure")}, 1, 2 * (1 + 2)),
        ({"sigma": 0}, 81, 1),
    ],
)
def test_info_and_progress_count_the_tiles(options, tiles, calls):
    """Batches of 64 tiles; the rules that try times filter two versions of the image, or its crops, beside."""
    noisy = np.random.default_rng(0).standard_normal((64, 64))
    seen = []
    _, info = nf.denoise_ntk(
        noisy, return_info=True, compute=nf.Compute(progress=seen.append), **{"sigma": 1.0} | options
    )
    assert info.tiles == tiles
    assert seen[-1] == 1.0
    assert seen == sorted(seen)
    assert len(seen) == calls
    assert info.seconds > 0


def test_progress_can_stop():
    _, noisy = photograph("astronaut", slice(0, 40), slice(100, 132), 20)

    def stop(fraction):
        raise InterruptedError

    with pytest.raises(InterruptedError):
        nf.denoise_ntk(noisy, 20, channel_axis=-1, compute=nf.Compute(progress=stop))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"sigma": -1}, ValueError, "sigma must be >= 0, got -1"),
        ({"sigma": float("nan")}, ValueError, "sigma must be finite"),
        ({"sigma": 1e16}, ValueError, r"sigma must be at most 1e\+15 for dtype float32, got 1e\+16"),
        ({"sigma": np.full((20, 20), 1e200), "compute": nf.Compute(dtype="float64")}, ValueError, r"at most 1e\+120"),
        ({"sigma": "5"}, TypeError, "sigma must be a real number, got '5'"),
        ({"channel_axis": -1}, ValueError, "image .* 3 dimensions"),
        ({"rng": -1}, ValueError, "rng must be at least 0"),
        ({"method": "tiles"}, TypeError, "method must be an ntkfast.Tiles or ntkfast.WholeImage, got 'tiles'"),
        ({"compute": "cpu"}, TypeError, "compute must be an ntkfast.Compute, got 'cpu'"),
        ({"strength": -1}, ValueError, "strength must be >= 0, got -1"),
        ({"strength": "1"}, TypeError, "strength must be a real number, got '1'"),
        ({"noise": 3.0}, TypeError, "noise must be an ntkfast.NoiseModel, such as PoissonGaussian, got 3.0"),
        ({"noise": nf.NoiseModel(3), "sigma": 2}, ValueError, "sigma and noise must not both be given, got sigma=2"),
        (
            {"sigma": nf.NoiseModel(3)},
            TypeError,
            r"sigma must be numbers, got NoiseModel.*: give it as noise",
        ),
        ({"sigma": np.ones((20, 21))}, ValueError, r"or of shape \(20, 20\), got shape \(20, 21\)"),
        ({"sigma": [1.0, 2.0]}, ValueError, r"one for each channel of shape \(1,\), or .*, got shape \(2,\)"),
        ({"sigma": np.zeros((20, 20))}, ValueError, "sigma must be positive at every pixel, got 0.0"),
        ({"sigma": [0.0]}, ValueError, "sigma must be positive at every channel, got 0.0"),
        ({"sigma": np.ones((1, 20, 20))}, ValueError, r"sigma must be a number, .* got shape \(1, 20, 20\)"),
        ({"sigma": np.full((20, 20), np.nan)}, ValueError, "sigma must be finite, got 400 NaN"),
        ({"sigma": np.full((20, 20), "a")}, TypeError, "sigma must be a real numeric array"),
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
    with pytest.raises(error, match=r"image (must|has shape)"):
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


# ----------------------------------------------------------------------------- what is known of the noise, the strength


def test_levels_of_the_channels():
    """Equal ones are the one level to the bit; others are the picture whose channels are scaled to the least."""
    _, noisy = photograph("chelsea", slice(60, 84), slice(100, 128), 10)
    one = nf.denoise_ntk(noisy, 10, channel_axis=-1)
    np.testing.assert_array_equal(nf.denoise_ntk(noisy, [10, 10, 10], channel_axis=-1), one)
    np.testing.assert_array_equal(nf.denoise_ntk(noisy, noise=nf.NoiseModel(10), channel_axis=-1), one)
    scale = np.array([1.0, 4.0, 2.0])
    out, info = nf.denoise_ntk(scale * noisy, 10 * scale, channel_axis=-1, return_info=True)
    np.testing.assert_allclose(out, scale * one, rtol=1e-12)
    assert info.level == 10
    np.testing.assert_array_equal(info.noise.sigma, 10 * scale)


def test_levels_of_the_channels_beat_one_level():
    clean, _ = photograph("chelsea", slice(60, 108), slice(100, 148), 0)
    levels = np.array([5.0, 40.0, 15.0])
    noisy = clean + levels * np.random.default_rng(0).standard_normal(clean.shape)
    single = max(psnr(nf.denoise_ntk(noisy, s, channel_axis=-1), clean) for s in (5, 15, 25, 40))
    assert psnr(nf.denoise_ntk(noisy, levels, channel_axis=-1), clean) > single + 1


@pytest.mark.parametrize("rule", RULES)
def test_strength_is_a_factor_of_the_level(rule):
    _, noisy = photograph("chelsea", slice(60, 84), slice(100, 128), 10)
    options = {"channel_axis": -1, "method": nf.Tiles(stopping=rule)}
    for sigma in (10, np.linspace(8, 12, 24)[:, None] * np.ones(28)):
        out, info = nf.denoise_ntk(noisy, sigma, strength=1.5, return_info=True, **options)
        np.testing.assert_allclose(out, nf.denoise_ntk(noisy, 1.5 * np.asarray(sigma), **options), atol=1e-9)
        assert info.level == pytest.approx(15, rel=0.05)
        np.testing.assert_array_equal(nf.denoise_ntk(noisy, sigma, strength=0, **options), noisy)
    counts = np.random.default_rng(0).poisson(20, (16, 16)).astype(float)
    np.testing.assert_array_equal(nf.denoise_ntk(counts, noise=nf.PoissonGaussian(1), strength=0), counts)


def test_strength_smooths_and_does_nothing_where_steps_are_given():
    noisy = np.random.default_rng(0).standard_normal((24, 24))
    spread = [nf.denoise_ntk(noisy + np.linspace(0, 9, 24), 1, strength=s).std() for s in (0.3, 1, 2)]
    assert spread[0] > spread[1] > spread[2]
    given = nf.Tiles(steps=7)
    out = nf.denoise_ntk(noisy, 1, method=given)
    np.testing.assert_array_equal(nf.denoise_ntk(noisy, 1, method=given, strength=0), out)


def test_info_has_the_options_as_they_were_used():
    noisy = np.random.default_rng(0).standard_normal((24, 24))
    _, info = nf.denoise_ntk(noisy, method=nf.Tiles(nf.unet(1), size=13, passes=1), return_info=True)
    assert info.method == nf.Tiles(nf.unet(1), size=14, overlap=10, passes=1)
    assert info.noise == nf.estimate_noise(noisy)
    again = nf.denoise_ntk(noisy, noise=info.noise, method=info.method)
    np.testing.assert_array_equal(again, nf.denoise_ntk(noisy, method=nf.Tiles(nf.unet(1), size=13, passes=1)))


# --------------------------------------------------------------------------------------------------- sets of pictures


def test_a_set_is_each_picture_by_itself():
    clean, _ = photograph("chelsea", slice(60, 92), slice(100, 132), 0)
    rng = np.random.default_rng(0)
    pictures = [clean[:n] + s * rng.standard_normal((n, 32, 3)) for n, s in ((32, 10), (20, 30), (32, 20))]
    pictures[1] = pictures[1].astype(np.float32)
    alone = [nf.denoise_ntk(p, channel_axis=-1, return_info=True) for p in pictures]
    seen = []
    compute = nf.Compute(progress=seen.append)
    out, infos = nf.denoise_ntk(pictures, channel_axis=-1, compute=compute, return_info=True)
    assert isinstance(out, list)
    assert [i.noise.sigma for i in infos] == [i.noise.sigma for _, i in alone]
    for got, (expected, _) in zip(out, alone, strict=True):
        assert got.dtype == expected.dtype
        np.testing.assert_array_equal(got, expected)
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert isinstance(nf.denoise_ntk(tuple(pictures[1:]), 20, channel_axis=-1, method=nf.Tiles(steps=2)), tuple)
    assert nf.estimate_noise(pictures, channel_axis=-1) == [i.noise for _, i in alone]
    models = [nf.NoiseModel(10), nf.PoissonGaussian(1), nf.NoiseModel(20)]
    each = nf.denoise_ntk(pictures, noise=models, channel_axis=-1)
    np.testing.assert_array_equal(each[1], nf.denoise_ntk(pictures[1], noise=models[1], channel_axis=-1))


@pytest.mark.parametrize(("shape", "frame", "channel"), [((3, 20, 18), 0, None), ((20, 3, 18), -2, None),
                                                         ((3, 20, 18, 2), 0, -1), ((2, 20, 18, 3), 3, 0)])  # fmt: skip
def test_a_set_in_one_array(shape, frame, channel):
    stack = np.random.default_rng(0).standard_normal(shape)
    method = nf.Tiles(steps=3)
    out, infos = nf.denoise_ntk(stack, 1.0, frame_axis=frame, channel_axis=channel, method=method, return_info=True)
    assert out.shape == shape
    assert len(infos) == 3
    gray = channel is None
    for n, picture in enumerate(np.moveaxis(stack, frame, 0)):
        axis = None if gray else (0 if channel == 0 else -1)
        expected = nf.denoise_ntk(picture, 1.0, channel_axis=axis, method=method)
        np.testing.assert_array_equal(np.moveaxis(out, frame, 0)[n], expected)
    assert len(nf.estimate_noise(stack, frame_axis=frame, channel_axis=channel)) == 3


@pytest.mark.parametrize(
    ("image", "options", "error", "message"),
    [
        (
            [[1.0, 2.0], [3.0, 4.0]],
            {},
            TypeError,
            r"image must be an array, or a list of arrays .*image\[0\] is of type",
        ),
        ([], {}, ValueError, r"image must not be empty, got \[\]"),
        ([np.ones((4, 4)), np.ones((4, 4, 3))], {}, ValueError, r"image\[1\] has shape \(4, 4, 3\), .*channel_axis=-1"),
        ([np.ones((4, 4)), np.full((4, 4), np.nan)], {}, ValueError, r"image\[1\] must be finite"),
        (np.ones((4, 4, 3)), {}, ValueError, "pass channel_axis=-1 .*, or frame_axis=0 for a stack of gray images"),
        ([np.ones((4, 4))], {"frame_axis": 0}, ValueError, "frame_axis is for an array of pictures"),
        ([np.ones((4, 4))], {"noise": []}, ValueError, "noise must be one model or 1, one for each picture, got 0"),
        ([np.ones((4, 4))], {"noise": [3]}, TypeError, "noise must be an ntkfast.NoiseModel, .* got 3"),
        (np.ones((4, 4)), {"noise": [nf.NoiseModel(1)]}, TypeError, "noise must be an ntkfast.NoiseModel"),
    ],
)
def test_bad_sets(image, options, error, message, monkeypatch):
    monkeypatch.setattr(CpuBackend, "make", fail)
    with pytest.raises(error, match=message):
        nf.denoise_ntk(image, **options)
    if not options:
        with pytest.raises(error, match=message):
            nf.estimate_noise(image)


def test_random_numbers():
    _, noisy = photograph("chelsea", slice(60, 84), slice(100, 124), 5)
    noisy = noisy[..., 0]

    def of(rng):
        return nf.denoise_ntk(noisy, 5, rng=rng, return_info=True)[1].steps

    assert of(0) == of(0)
    assert of(7) == of(7)
    generators = [np.random.default_rng(3) for _ in range(2)]
    assert of(generators[0]) == of(generators[1])
    assert generators[0].integers(2**60) == generators[1].integers(2**60) != np.random.default_rng(3).integers(2**60)
    assert len({of(None) for _ in range(6)}) > 1
    for wrong, error in ((-1, ValueError), (1.5, TypeError), ("0", TypeError)):
        with pytest.raises(error, match="rng must be"):
            of(wrong)


# --- Memory -------------------------------------------------------------------------------------------------------


def noisy_square(side, channels=3):
    return np.random.default_rng(0).standard_normal((side, side, channels))


def fail(*_args, **_options):
    raise AssertionError("work was begun")


@pytest.mark.parametrize("steps", [5, None])
def test_a_tile_that_does_not_fit_is_refused_before_work(steps, monkeypatch):
    monkeypatch.setattr(CpuBackend, "make", fail)
    monkeypatch.setattr(memory, "available_memory", lambda: 2**24)
    message = r"a tile of 96 x 96 pixels, with the image, needs .* bytes\), but only 16\.0 MiB .*: use Tiles of a sma"
    with pytest.raises(MemoryError, match=message):
        nf.denoise_ntk(noisy_square(100), 0.5, channel_axis=-1, method=nf.Tiles(size=96, steps=steps))
    monkeypatch.setattr(memory, "available_memory", lambda: 10**5)
    with pytest.raises(MemoryError, match="use a smaller image"):
        nf.denoise_ntk(noisy_square(100), 0.5, channel_axis=-1, method=nf.Tiles(size=4, overlap=1, steps=steps))


def test_fewer_tiles_at_a_time_where_memory_is_short(monkeypatch):
    """The same number of them on any number of threads, so that the bits are the same."""
    image, options = noisy_square(64), {"channel_axis": -1, "method": nf.Tiles(steps=20, passes=1)}
    expected = nf.denoise_ntk(image, 0.5, compute=nf.Compute(threads=2), **options)
    batches, make = [], CpuBackend.make

    def watched(self, problem, tiles):
        batches.append(len(tiles))
        return make(self, problem, tiles)

    monkeypatch.setattr(CpuBackend, "make", watched)
    monkeypatch.setattr(memory, "available_memory", lambda: 3 * 2**22)
    one, two = (nf.denoise_ntk(image, 0.5, compute=nf.Compute(threads=threads), **options) for threads in (1, 2))
    np.testing.assert_array_equal(one, two)
    assert 1 < max(batches) < 32
    assert np.abs(one - expected).max() <= 2e-3 * np.abs(expected).max()


def test_fewer_threads_where_memory_is_short(monkeypatch):
    options = {"channel_axis": -1, "method": nf.Tiles(steps=5, passes=1), "compute": nf.Compute(threads=8)}
    image = noisy_square(96)
    expected = nf.denoise_ntk(image, 0.5, **options)
    pools, Pool = [], tile_filter.ThreadPoolExecutor
    monkeypatch.setattr(tile_filter, "ThreadPoolExecutor", lambda workers: pools.append(workers) or Pool(workers))
    monkeypatch.setattr(memory, "available_memory", lambda: 2 * 10**8)
    np.testing.assert_array_equal(nf.denoise_ntk(image, 0.5, **options), expected)
    assert set(pools) in ({2}, {3}, {4})


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak memory from /proc")
def test_tiles_take_what_is_counted():
    code = """
import re
import numpy as np
from ntkfast import Compute, Tiles, denoise_ntk, vanilla_cnn
from ntkfast.engine.cpu import CPU
from ntkfast.restoration.image_filter import array_bytes
from ntkfast.restoration.options import CHROMA_TIME
from ntkfast.restoration.tile_filter import TileMethod, batch_bytes

def resident(name):
    return 1024 * int(re.search(name + r":\\s*(\\d+)", open("/proc/self/status").read())[1])

image = np.random.default_rng(0).standard_normal((160, 160, 1))
options = {"channel_axis": -1, "compute": Compute("cpu", threads=1)}
denoise_ntk(image[:20, :20], 0.5, method=Tiles(steps=20, passes=1), **options)  # imports
before = resident("VmRSS")
denoise_ntk(image, 0.5, method=Tiles(size=40, overlap=20, steps=20, passes=1), **options)  # 49 tiles
method = TileMethod(vanilla_cnn(1, 5), 40, 20, np.dtype("float32"), CPU, 1, CHROMA_TIME)
print(resident("VmHWM") - before, array_bytes((1, *image.shape), 1) + batch_bytes(method, (40, 40, 1), 49, 1))
"""
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    taken, counted = map(int, printed.split())
    assert 0.6 * counted <= taken <= 1.05 * counted


@pytest.mark.parametrize("steps", [5, None])
def test_a_whole_image_that_does_not_fit_is_refused_before_work(steps, monkeypatch):
    options = {"steps": steps, "passes": 1}
    with monkeypatch.context() as patch:
        patch.setattr(whole_filter, "NTK", fail)
        patch.setattr(memory, "available_memory", lambda: 10**6)
        message = (
            r"method=WholeImage\(\) on 64 x 64 pixels needs .* bytes\), but only .*: use method=Tiles\(\), or .*land"
        )
        with pytest.raises(MemoryError, match=message):
            nf.denoise_ntk(noisy_square(64), 0.5, channel_axis=-1, method=nf.WholeImage(**options))
        with pytest.raises(
            MemoryError, match=r"method=WholeImage\(landmarks=256\) on .* needs .*: use method=Tiles\(\)$"
        ):
            nf.denoise_ntk(noisy_square(64), 0.5, channel_axis=-1, method=nf.WholeImage(landmarks=256, **options))
        patch.setattr(memory, "available_memory", lambda: 5 * 10**7)
        with pytest.raises(MemoryError, match=r": landmarks = \d+ would fit") as error:
            nf.denoise_ntk(noisy_square(64), 0.5, channel_axis=-1, method=nf.WholeImage(landmarks=1000, **options))
    fits = int(str(error.value).split("landmarks = ")[1].split()[0])
    monkeypatch.setattr(memory, "available_memory", lambda: 5 * 10**7)
    nf.denoise_ntk(noisy_square(64), 0.5, channel_axis=-1, method=nf.WholeImage(landmarks=fits, **options))


@pytest.mark.parametrize(
    ("landmarks", "hint"), [(None, r"method=Tiles\(\), or WholeImage with landmarks"), (256, "landmarks = ")]
)
def test_a_refusal_in_the_middle_names_an_option_of_the_caller(landmarks, hint, monkeypatch):
    """Others may have taken memory since the first look."""
    monkeypatch.setattr(whole_filter.WholeMethod, "fitted", lambda self, *_: self)
    kernel = nf.NTK(nf.vanilla_cnn(1, 5), noisy_square(64), channel_axis=-1, threads=1)
    monkeypatch.setattr(memory, "available_memory", lambda: kernel.memory_estimate()["stream"])
    method = nf.WholeImage(landmarks=landmarks, steps=5, passes=1)
    with pytest.raises(MemoryError, match=hint):
        nf.denoise_ntk(noisy_square(64), 0.5, channel_axis=-1, method=method, compute=nf.Compute(threads=1))
