"""These test what the denoiser removes, and that each rule stops it near the best time."""

import itertools

import numpy as np
import pytest
from bench.quality.methods import non_local_means
from skimage import data

import ntkfast as nf
from denoising import photograph, psnr
from images import IMAGES
from ntkfast.restoration.stopping import RISKS, RULES, STEPS


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


def test_a_bright_pixel_spoils_only_its_surroundings():
    """It makes the step size, one for all tiles, so small that the best times lie beyond the rules' first grid."""
    clean, noisy = photograph("chelsea", slice(60, 124), slice(100, 164), 20)
    star = noisy.copy()
    star[10, 30] += 1e6
    far = slice(30, None)
    plain, with_star = (psnr(nf.denoise_ntk(y, 20, channel_axis=-1)[far], clean[far]) for y in (noisy, star))
    assert with_star > plain - 0.3


def test_the_grid_of_steps_is_increasing():
    assert STEPS[0] == 1
    assert all(b > a for a, b in itertools.pairwise(STEPS))
