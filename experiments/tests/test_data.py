"""Pictures."""

import numpy as np
import pytest

from experiments import data


def test_problem_is_part_of_the_reduced_picture():
    import skimage.data

    found = data.problem("astronaut", 16, reduction=4, centre=(0.25, 0.5))
    whole = skimage.data.astronaut().astype(float)
    want = whole[4 * 24 : 4 * 40, 4 * 56 : 4 * 72].mean(axis=2).reshape(16, 4, 16, 4).mean(axis=(1, 3))
    shift = 255 * found.clean - want
    np.testing.assert_allclose(shift, shift.mean(), atol=1e-9)
    assert found.noisy.mean() == pytest.approx(0, abs=1e-12)
    noise = found.noisy - found.clean
    assert noise.std() == pytest.approx(found.sigma, rel=0.15)
    assert found.psnr(found.noisy) == pytest.approx(-10 * np.log10(np.mean(noise**2)))
    assert data.problem("astronaut", 16, gray=False).noisy.shape == (16, 16, 3)
    with pytest.raises(ValueError, match="side must be at most 128"):
        data.problem("astronaut", 129)
