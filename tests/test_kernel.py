"""These test NTK and NNGP as SciPy operators: products, columns, storage."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator, cg, eigsh, lobpcg, svds

from cases import OPERATORS
from images import natural, noise
from ntkfast import NNGP, NTK, NoiseInput, autoencoder, unet, vanilla_cnn
from ntkfast.engine import memory
from ntkfast.reference import kernel_matrix
from operators import NET, Fenced, operator, relative


@pytest.fixture(scope="module", params=["stream", "dense"])
def K(request):  # noqa: N802
    return operator(storage=request.param)


@pytest.fixture(scope="module")
def theta():
    return kernel_matrix(NET, natural(8, 9, 3, 0), channel_axis=-1)


def test_is_a_linear_operator(K):
    assert isinstance(K, LinearOperator)
    assert aslinearoperator(K) is K
    assert K.shape == (72, 72)
    assert K.dtype == np.float64
    assert operator("float32").dtype == np.float32


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_in_all_their_spellings(dtype, theta):
    K = operator(dtype)
    tolerance = {"float32": 1e-5, "float64": 1e-12}[dtype]
    v, V = noise(72, 1, 1, 1)[:, 0, 0], noise(72, 3, 1, 2)[..., 0]
    for result in (K @ v, K.dot(v), K.matvec(v), K.rmatvec(v), K * v, K.T @ v, K.H @ v, K.adjoint() @ v, v @ K):
        assert result.dtype == dtype
        assert relative(result, theta @ v) <= tolerance
    for result in (K @ V, K.matmat(V), K.rmatmat(V), K.T @ V):
        assert result.dtype == dtype
        assert relative(result, theta @ V) <= tolerance
    assert relative(K.matvec(v[:, None]), (theta @ v)[:, None]) <= tolerance
    assert (K @ np.empty((72, 0))).shape == (72, 0)


def test_products_of_any_real_type_and_layout(K, theta):
    V = np.random.default_rng(0).integers(0, 9, (72, 6))
    for v in (V, V.astype(np.uint8), V.astype(np.float16), V > 4, np.asfortranarray(V), V[:, ::-2], V[::-1]):
        assert relative(K @ v, theta @ v.astype(float)) <= 1e-12


def test_operators_made_of_it(K, theta):
    v = noise(72, 1, 1, 1)[:, 0, 0]
    one = aslinearoperator(scipy.sparse.identity(72))
    for made, matrix in (
        (2 * K, 2 * theta),
        (-K, -theta),
        (K + 0.1 * one, theta + 0.1 * np.eye(72)),
        (K - K, 0 * theta + 1e-300),
        (K**2, theta @ theta),
        (K @ K.T, theta @ theta),
    ):
        assert np.abs(made @ v - matrix @ v).max() <= 1e-11 * np.abs(theta @ v).max()


def test_transpose_is_the_operator_itself(K):
    assert K.T is K
    assert K.H is K


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_eigsh_svds_and_lobpcg(dtype, theta):
    K = operator(dtype)
    values = np.linalg.eigvalsh(theta)[::-1][:3]
    start = np.random.default_rng(0).standard_normal((72, 3))
    tolerance = {"float32": 1e-5, "float64": 1e-10}[dtype]
    found = eigsh(K, k=3, v0=start[:, 0], return_eigenvectors=False)
    assert relative(np.sort(found)[::-1], values) <= tolerance
    singular = svds(K, k=2, v0=start[:, 0], return_singular_vectors=False)
    assert relative(np.sort(singular)[::-1], values[:2]) <= tolerance
    found, vectors = lobpcg(K, start.astype(dtype), maxiter=100, tol=1e-4)
    assert relative(found, values) <= 1e-4
    assert vectors.shape == (72, 3)


def test_cg_solves_ridge_regression(K, theta):
    y = noise(72, 1, 1, 1)[:, 0, 0]
    solution, status = cg(K + 0.1 * aslinearoperator(scipy.sparse.identity(72)), y, rtol=1e-10)
    assert status == 0
    assert relative(solution, np.linalg.solve(theta + 0.1 * np.eye(72), y)) <= 1e-8


def test_apply_keeps_the_shape(K, theta):
    rng = np.random.default_rng(1)
    for shape in ((8, 9), (8, 9, 1), (8, 9, 3), (8, 9, 7), (72,), (72, 1), (72, 4)):
        image = rng.standard_normal(shape)
        result = K.apply(image)
        assert result.dtype == np.float64
        assert relative(result, (theta @ image.reshape(72, -1)).reshape(shape)) <= 1e-12
    assert relative(K.apply(image.astype(np.float32).tolist()), theta @ image.astype(np.float32)) <= 1e-12


def test_columns_affinity_diagonal_and_dense_agree(K, theta):
    assert relative(K.dense(), theta) <= 1e-12
    assert relative(K.diagonal(), np.diagonal(theta)) <= 1e-12
    for indices in ([5], [71, 0, 0, 33], range(72), np.arange(3, dtype=np.uint8), (1, 2)):
        assert relative(K.columns(indices), theta[:, list(indices)]) <= 1e-12
    for indices in ([], np.array([], int)):
        assert K.columns(indices).shape == (72, 0)
    for row, col in ((0, 0), (7, 8), (np.int64(3), np.uint8(4))):
        assert relative(K.affinity(row, col), theta[int(row) * 9 + int(col)].reshape(8, 9)) <= 1e-12


def test_results_are_the_callers_own(K):
    v = np.ones(72)
    first = [K @ v, K.dense(), K.columns([1]), K.diagonal(), K.affinity(0, 0)]
    kept = [array.copy() for array in first]
    for array in first:
        array[...] = np.nan
    for again, expected in zip([K @ v, K.dense(), K.columns([1]), K.diagonal(), K.affinity(0, 0)], kept, strict=True):
        np.testing.assert_array_equal(again, expected)


def test_later_changes_of_the_image_do_not_count():
    image = natural(6, 7, 3, 0)
    K = NTK(NET, image, storage="dense", dtype="float64", channel_axis=-1)
    before = K @ np.ones(42)
    image[...] = 0
    np.testing.assert_array_equal(K @ np.ones(42), before)
    np.testing.assert_array_equal(K.diagonal() > 0, True)


def test_names_what_it_is():
    K = operator("float32", "dense", kernel="nngp")
    assert repr(K) == (
        "<8x9 NNGP of Network([Conv(5), ReLU(), Conv(1)], padding='zeros'), dtype=float32, "
        "storage='dense', device='cpu'>"
    )
    assert (type(K), K.device, K.image_shape, K.channels, K.network) == (NNGP, "cpu", (8, 9), 3, NET)
    assert K.lambda_max is None


def test_columns_of_a_large_image_need_no_sweep():
    image = noise(300, 300, 1, 0)
    K = NTK(NET, image, dtype="float64", channel_axis=-1)
    K._engine = Fenced(K._engine, "dense", "product", "store")
    pixels = [0, 300 * 150 + 150, 300 * 299 + 4]
    columns = K.columns(pixels)
    assert columns.shape == (90000, 3)
    # Pixels whose patches lie in a corner of 7 x 7 have the kernel of that corner cut out.
    theta = kernel_matrix(NET, image[:7, :7], channel_axis=-1).reshape(7, 7, 7, 7)[0, 0, :5, :5]
    assert relative(columns[:, 0].reshape(300, 300)[:5, :5], theta) <= 1e-12
    np.testing.assert_array_equal(K.affinity(150, 150).ravel(), columns[:, 1])


def test_many_columns_take_one_sweep(monkeypatch):
    K = operator(shape=(20, 20, 1), threads=1)
    K._engine = Fenced(K._engine, "columns")
    every = K.columns(range(400))
    np.testing.assert_array_equal(every, K.dense())
    # ... unless the matrix does not fit
    monkeypatch.setattr(memory, "available_memory", lambda: 3 * 8 * 400 * 400)
    with pytest.raises(AssertionError, match="columns was used"):
        K.columns(range(400))


def test_storage_auto_goes_by_size(monkeypatch):
    needed = operator().memory_estimate()
    for free, storage in ((4.1 * needed["dense"], "dense"), (3.9 * needed["dense"], "stream")):
        monkeypatch.setattr(memory, "available_memory", lambda free=free: int(free))
        assert operator(storage="auto").storage == storage
    assert operator(storage="stream").storage == "stream"
    assert operator(storage="dense").storage == "dense"


def test_stores_at_the_first_product_only():
    K = operator(storage="dense")
    assert not K._engine.stored
    K.columns([0])
    assert not K._engine.stored
    first = K @ np.ones(72)
    assert K._engine.stored
    K._engine = Fenced(K._engine, "store")
    np.testing.assert_array_equal(K @ np.ones(72), first)
    streaming = operator(storage="stream")
    streaming._engine = Fenced(streaming._engine, "store")
    assert relative(streaming @ np.ones(72), first) <= 1e-13


@pytest.mark.parametrize("padding", ["zeros", "circular"])
def test_coarse_fields_are_kept_and_give_the_same_products(padding):
    image = np.random.default_rng(0).normal(size=(16, 24, 2))
    v = np.random.default_rng(1).normal(size=(16 * 24, 3))
    net = unet(2, padding=padding)
    stream, coarse = (NTK(net, image, storage=storage, threads=2, channel_axis=-1) for storage in ("stream", "coarse"))
    expected = stream @ v
    assert not coarse._engine.coarse_kept
    for _ in range(2):  # the second product finds the coarse fields
        np.testing.assert_allclose(coarse @ v, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
        assert coarse._engine.coarse_kept
    np.testing.assert_array_equal(coarse.dense(), stream.dense())


def test_coarse_needs_several_resolutions():
    with pytest.raises(ValueError, match="storage='coarse' is for networks of several resolutions, got one"):
        NTK(vanilla_cnn(1, 3), np.ones((4, 4)), storage="coarse")


def test_a_stopped_product_keeps_no_coarse_fields():
    def stop(fraction):
        raise KeyError

    image = np.random.default_rng(0).normal(size=(64, 64))
    operator = NTK(unet(1), image, storage="coarse", progress=stop)
    with pytest.raises(KeyError):
        operator @ np.ones(64 * 64)
    assert not operator._engine.coarse_kept
    operator._progress = None
    expected = NTK(unet(1), image, storage="stream") @ np.ones(64 * 64)
    np.testing.assert_allclose(operator @ np.ones(64 * 64), expected, rtol=0, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize(
    "net",
    [vanilla_cnn(2, 3, padding="circular"), unet(2, padding="circular"), autoencoder(1, padding="circular")],
    ids=["chain", "unet", "autoencoder"],
)
@pytest.mark.parametrize("kernel", ["ntk", "nngp"])
def test_noise_on_the_torus_is_a_fourier_filter(net, kernel):
    """The kernel of noise depends on j - i and on i modulo the network's multiple: products are FFT filters."""
    noise = NoiseInput((8, 12))
    operator = OPERATORS[kernel](net, noise)
    assert operator.storage == "fourier"
    theta = kernel_matrix(net, noise, kernel)
    v = np.random.default_rng(0).normal(size=(96, 3))
    scale = np.abs(theta @ v).max()
    np.testing.assert_allclose(operator @ v, theta @ v, rtol=0, atol=1e-6 * scale)
    np.testing.assert_allclose(operator @ v[:, 0], theta @ v[:, 0], rtol=0, atol=1e-6 * scale)
    swept = OPERATORS[kernel](net, noise, storage="stream")
    assert swept.storage == "stream"
    # Entries are within 1e-6 of the largest; what is left of a sum with signs is smaller: 1.07e-6 of it on one thread.
    np.testing.assert_allclose(swept @ v, theta @ v, rtol=0, atol=2e-6 * scale)
    if net.multiple == 1:  # plainly stationary: one transfer function
        transfer = np.fft.fft2(theta[0].reshape(8, 12))
        filtered = np.fft.ifft2(transfer * np.fft.fft2(v[:, 0].reshape(8, 12))).real.ravel()
        np.testing.assert_allclose(operator @ v[:, 0], filtered, rtol=0, atol=1e-6 * scale)


def test_noise_without_wrapping_is_swept():
    operator = NTK(autoencoder(1), NoiseInput((8, 8)))
    assert operator.storage == "dense"
    theta = kernel_matrix(operator.network, NoiseInput((8, 8)))
    np.testing.assert_allclose(operator.dense(), theta, rtol=0, atol=1e-6 * theta.max())
