"""These denoise sets of pictures: lists, tuples, and arrays with an axis of frames."""

import numpy as np
import pytest

import ntkfast as nf
from denoising import fail, photograph
from ntkfast.engine.cpu import CpuBackend


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
