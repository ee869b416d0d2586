"""These test the denoiser's other arguments: random numbers, progress, the info that it returns, and refusals."""

import numpy as np
import pytest

import ntkfast as nf
from denoising import photograph


def test_same_bits_for_the_same_seed():
    _, noisy = photograph("astronaut", slice(0, 40), slice(100, 132), 20)
    results = [nf.denoise_ntk(noisy, 20, channel_axis=-1, rng=seed, compute=nf.Compute(threads=2)) for seed in (3, 3)]
    np.testing.assert_array_equal(*results)


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


def test_info_has_the_options_as_they_were_used():
    noisy = np.random.default_rng(0).standard_normal((24, 24))
    _, info = nf.denoise_ntk(noisy, method=nf.Tiles(nf.unet(1), size=13, passes=1), return_info=True)
    assert info.method == nf.Tiles(nf.unet(1), size=14, overlap=10, passes=1)
    assert info.noise == nf.estimate_noise(noisy)
    again = nf.denoise_ntk(noisy, noise=info.noise, method=info.method)
    np.testing.assert_array_equal(again, nf.denoise_ntk(noisy, method=nf.Tiles(nf.unet(1), size=13, passes=1)))


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
