"""These compare the denoiser's tiles and whole images with dense formulas, and with each other."""

import numpy as np
import pytest

import ntkfast as nf
from images import IMAGES
from ntkfast import _choices
from ntkfast._choices import OVERLAP, SIZE
from ntkfast.reference import kernel_matrix
from ntkfast.restoration import tile_filter
from ntkfast.restoration.methods import METHODS
from ntkfast.restoration.picture import mixing
from ntkfast.restoration.tiles import Tiling


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


def test_crops_of_the_rule_hold_whole_tiles(monkeypatch):
    """Crops of 12 pixels would not fit a network that needs multiples of 8."""
    monkeypatch.setattr("ntkfast.restoration.picture.RULE_CROP_SIZE", 12)
    noisy = np.random.default_rng(0).standard_normal((56, 56))
    _, info = nf.denoise_ntk(noisy, 1.0, return_info=True, method=nf.Tiles(network=nf.autoencoder(3), passes=1))
    assert (info.stopping, info.method.size) == ("sure", 16)


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


@pytest.mark.parametrize(("size", "overlap"), [(16, 8), (16, 0), (5, 4), (40, 3), (1, 0)])
def test_tiles_cover_and_blend_to_the_same_image(size, overlap):
    images = np.random.default_rng(0).standard_normal((2, 23, 31, 3))
    tiling = Tiling(images.shape[:3], size, overlap)
    sums = tiling.accumulator(3)
    for start in range(0, tiling.count, 7):
        which = slice(start, start + 7)
        tiling.add(sums, tiling.extract(images, which), which)
    np.testing.assert_allclose(Tiling.blend(sums), images, atol=1e-12)
