"""These test what the denoiser is told of the noise: maps, gains and levels of channels, and the strength."""

import numpy as np
import pytest

import ntkfast as nf
from denoising import photograph, psnr
from ntkfast.restoration.picture import LEAST_LEVEL, _without_bad_pixels
from ntkfast.restoration.stopping import RULES


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
