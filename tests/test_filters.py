"""Filters are compared with dense float64 linear algebra and with the plain iteration."""

import tracemalloc
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.linalg import LinearOperator, aslinearoperator

import ntkfast as nf
from images import HARD, IMAGES
from ntkfast.engine import memory
from ntkfast.reference import kernel_matrix
from ntkfast.spectral.filters import iteration_bytes
from ntkfast.spectral.lanczos import BlockLanczos, lanczos_bytes, ridge_filter

TOLERANCE = {"float32": 2e-5, "float64": 1e-8}


@pytest.fixture(scope="module", params=["float32", "float64"])
def problem(request):
    """Return a kernel, its dense float64 matrix, and a colour target."""
    image = IMAGES["centred"](14, 11, 3, 0)
    K = nf.NTK(nf.vanilla_cnn(1, 5), image, dtype=request.param, channel_axis=-1)
    return K, kernel_matrix(K.network, image, channel_axis=-1), image


def apply(matrix, f, y):
    """Return f(matrix) y by an eigendecomposition in float64."""
    values, vectors = np.linalg.eigh(matrix)
    columns = y.reshape(len(matrix), -1)
    return (vectors @ (f(np.maximum(values, 0))[:, None] * (vectors.T @ columns))).reshape(y.shape)


def descent(rate, steps):
    return lambda x: 1 - (1 - rate * x) ** steps


def assert_close(got, wanted, tolerance):
    assert got.shape == wanted.shape
    assert np.linalg.norm(got - wanted) <= tolerance * np.linalg.norm(wanted)


@pytest.mark.parametrize("steps", [1, 7, 100, 3000])
def test_gradient_descent_is_the_power(problem, steps):
    K, matrix, y = problem
    z, info = nf.gradient_descent(K, y, steps, return_info=True)
    top = np.linalg.eigvalsh(matrix)[-1]
    assert info.lambda_max == pytest.approx(top, rel=1e-4)
    assert info.learning_rate == pytest.approx(1 / info.lambda_max)
    assert z.dtype == K.dtype
    wanted = apply(matrix, lambda x: 1 - (1 - info.learning_rate * x) ** steps, y)
    assert_close(z, wanted, TOLERANCE[K.dtype.name])


def test_path_and_single_steps_agree(problem):
    K, _, y = problem
    path = nf.gradient_descent(K, y, [0, 3, 50])
    assert path.shape == (3, *y.shape)
    assert not path[0].any()
    for z, t in zip(path, (0, 3, 50), strict=True):
        assert np.abs(z - nf.gradient_descent(K, y, t)).max() <= TOLERANCE[K.dtype.name] * np.abs(y).max()


@pytest.mark.parametrize("share", [0.3, 1.0, 1.9])
def test_lanczos_follows_the_plain_iteration(problem, share):
    K, matrix, y = problem
    rate = share / np.linalg.eigvalsh(matrix)[-1]
    steps = [0, 1, 2, 5, 60]
    fast = nf.gradient_descent(K, y, steps, rate)
    slow, info = nf.gradient_descent(K, y, steps, rate, method="iteration", return_info=True)
    assert info.products == 60
    assert np.abs(fast - slow).max() <= TOLERANCE[K.dtype.name] * np.abs(y).max()


def test_gradient_flow_and_ridge(problem):
    K, matrix, y = problem
    top = np.linalg.eigvalsh(matrix)[-1]
    tolerance = TOLERANCE[K.dtype.name]
    times = [0.0, 3 / top, 200 / top]
    flow = nf.gradient_flow(K, y, times)
    assert not flow[0].any()
    for z, t in zip(flow[1:], times[1:], strict=True):
        assert_close(z, apply(matrix, lambda x, t=t: 1 - np.exp(-t * x), y), tolerance)
    for variance in (0.01 * top, 0.3 * top):
        wanted = matrix @ np.linalg.solve(matrix + variance * np.eye(len(matrix)), y.reshape(len(matrix), -1))
        assert_close(nf.ridge(K, y, variance), wanted.reshape(y.shape), tolerance)


def test_flow_is_the_limit_of_small_steps(problem):
    K, matrix, y = problem
    t = 20 / np.linalg.eigvalsh(matrix)[-1]
    errors = [np.linalg.norm(nf.gradient_descent(K, y, n, t / n) - nf.gradient_flow(K, y, t)) for n in (40, 80)]
    assert errors[1] < 0.6 * errors[0]


@pytest.mark.parametrize("tolerance", [1e-1, 1e-2, 1e-3])
def test_the_error_estimate_bounds_the_error(problem, tolerance):
    K, matrix, y = problem
    top = np.linalg.eigvalsh(matrix)[-1]
    rate, rounding = 1 / top, TOLERANCE[K.dtype.name]
    cases = [(nf.gradient_descent(K, y, 300, rate, tolerance=tolerance, return_info=True), descent(rate, 300))]
    for t in (0.1 / top, 300 / top):
        flow = nf.gradient_flow(K, y, t, tolerance=tolerance, return_info=True)
        cases.append((flow, lambda x, t=t: 1 - np.exp(-t * x)))
    for variance in (0.1 * top, top, 10 * top):  # for large ones the bound is within 15% of the error
        ridge = nf.ridge(K, y, variance, tolerance=tolerance, return_info=True)
        cases.append((ridge, lambda x, v=variance: x / (x + v)))
    for (z, info), f in cases:
        assert info.error <= tolerance
        assert_close(z, apply(matrix, f, y), info.error + rounding)


def test_the_basis_stays_orthonormal_where_products_cancel():
    """With eigenvalues that fall fast, what is left of a product is all but its rounding: one pass is not enough."""
    rng = np.random.default_rng(0)
    vectors = np.linalg.qr(rng.standard_normal((60, 60)))[0]
    matrix = (vectors * 10.0 ** -np.arange(0, 12, 0.2)) @ vectors.T
    lanczos = BlockLanczos(lambda v: matrix @ v, rng.standard_normal((1, 60, 3)))
    for _ in range(6):
        lanczos.step()
    basis = np.concatenate([slab[0] for slab in lanczos._slabs], axis=1)
    assert basis.shape == (60, 21)
    assert np.abs(basis.T @ basis - np.eye(21)).max() <= 1e-14


def test_the_largest_eigenvalue_is_looked_for_once():
    K = nf.NTK(nf.vanilla_cnn(1, 5), IMAGES["centred"](14, 11, 3, 0), channel_axis=-1)
    y, widths = IMAGES["centred"](14, 11, 3, 1), []
    whole = K._matmat
    K._matmat = lambda V: widths.append(V.shape[1]) or whole(V)
    _, first = nf.gradient_descent(K, y, 10, return_info=True)
    assert K.lambda_max == first.lambda_max
    assert set(widths) == {4}  # beside y the direction that finds it
    widths.clear()
    _, second = nf.gradient_descent(K, y, 20, return_info=True)
    assert second.lambda_max == first.lambda_max
    assert set(widths) == {3}


# --- Memory -------------------------------------------------------------------------------------------------------


def peak_of(call):
    """Return the bytes of NumPy's arrays at their most."""
    call()  # imports and caches
    tracemalloc.start()
    call()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("products", "steps"), [(5, [10]), (30, [10]), (9, list(range(60)))])
def test_the_basis_takes_what_is_counted(dtype, products, steps):
    K = nf.NTK(
        nf.vanilla_cnn(1, 3), IMAGES["noise"](40, 40, 1, 0), dtype=dtype, storage="stream", threads=1, channel_axis=-1
    )
    y = np.random.default_rng(1).standard_normal((1600, 3)).astype(dtype)
    K.lambda_max = 1.0  # no probe, and never done
    options = {"max_products": products, "tolerance": 1e-30, "return_info": True}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        assert nf.gradient_descent(K, y, steps, **options)[1].products == products
        taken = peak_of(lambda: nf.gradient_descent(K, y, steps, **options))
    counted = lanczos_bytes(1600, 3, products, 3 * len(steps), K.dtype.itemsize)
    assert 0.5 * counted <= taken <= counted


def test_a_basis_that_does_not_fit_is_refused_before_work(monkeypatch):
    K = nf.NTK(nf.vanilla_cnn(1, 3), IMAGES["noise"](40, 40, 1, 0), storage="stream", threads=1, channel_axis=-1)
    y = IMAGES["noise"](40, 40, 3, 1)
    options = {"tolerance": 1e-30}
    needed = [K.working_bytes(1) + lanczos_bytes(1600, 4, n, 3, 4) for n in range(32)]
    monkeypatch.setattr(K, "matmat", lambda V: pytest.fail("work was begun"))
    for free, hint in ((needed[30] - 1, "max_products=29 would fit"), (needed[1] - 1, "fewer columns of y at a time")):
        monkeypatch.setattr(memory, "available_memory", lambda free=free: free)
        message = (
            rf"vectors of 30 products with 4 columns needs .*\({needed[30]} bytes\), but only .*{free}.*: .*{hint}"
        )
        with pytest.raises(MemoryError, match=message):
            nf.gradient_descent(K, y, 1000, **options)
    monkeypatch.undo()
    monkeypatch.setattr(memory, "available_memory", lambda: needed[29])
    with pytest.warns(RuntimeWarning, match="raise max_products"):
        nf.gradient_descent(K, y, 1000, max_products=29, **options)
    monkeypatch.setattr(memory, "available_memory", lambda: needed[31])
    with pytest.warns(RuntimeWarning, match="after 31 products .* there is no memory for more"):
        nf.gradient_descent(K, y, 10**6, **options)


def test_many_results_that_do_not_fit_are_refused_with_fewer_as_the_option(monkeypatch):
    K = nf.NTK(nf.vanilla_cnn(1, 3), IMAGES["noise"](40, 40, 1, 0), storage="stream", threads=1, channel_axis=-1)
    y = IMAGES["noise"](40, 40, 3, 1)
    monkeypatch.setattr(K, "matmat", lambda V: pytest.fail("work was begun"))
    fewer = K.working_bytes(1) + lanczos_bytes(1600, 3, 30, 3, 4)
    monkeypatch.setattr(memory, "available_memory", lambda: fewer)
    with pytest.raises(MemoryError, match=r"30 products with 3 columns, and 90 results, needs .* fewer steps, times"):
        nf.ridge(K, y, list(range(1, 91)))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("steps", [[50], list(range(1, 11))])
@pytest.mark.parametrize("of_y", ["float32", "float64"])
def test_the_iteration_takes_what_is_counted(dtype, steps, of_y):
    K = nf.NTK(
        nf.vanilla_cnn(1, 3), IMAGES["noise"](40, 40, 1, 0), dtype=dtype, storage="stream", threads=1, channel_axis=-1
    )
    y = np.random.default_rng(1).standard_normal((1600, 3)).astype(of_y)
    K.lambda_max = 100.0
    taken = peak_of(lambda: nf.gradient_descent(K, y, steps, 1e-3, method="iteration"))
    counted = iteration_bytes(1600, 3, len(steps), K.dtype.itemsize)
    assert 0.5 * counted <= taken <= counted


@pytest.mark.parametrize(
    ("channels", "steps", "what", "hint"),
    [
        (3, list(range(50)), "50 images with 3 columns", "fewer steps"),
        (3, 7, "1 image with 3 columns", "fewer columns of y"),
        (1, 7, "1 image with 1 column", "use a smaller image"),
    ],
)
def test_an_iteration_that_does_not_fit_is_refused_before_work(channels, steps, what, hint, monkeypatch):
    K = nf.NTK(nf.vanilla_cnn(1, 3), IMAGES["noise"](40, 40, 1, 0), storage="stream", threads=1, channel_axis=-1)
    monkeypatch.setattr(K, "matmat", lambda V: pytest.fail("work was begun"))
    needed = K.working_bytes(1) + iteration_bytes(1600, channels, np.size(steps), 4)
    monkeypatch.setattr(memory, "available_memory", lambda: needed - 1)
    with pytest.raises(MemoryError, match=rf"a path of {what} needs .*\({needed} bytes\), but only .*: .*{hint}"):
        nf.gradient_descent(K, IMAGES["noise"](40, 40, channels, 1), steps, method="iteration")


# --- Bad input ----------------------------------------------------------------------------------------------------


def test_what_filters_take_as_a_kernel():
    y = np.ones(4)
    for call in (nf.gradient_descent, lambda K, y: nf.gradient_flow(K, y, 1.0), lambda K, y: nf.ridge(K, y, 1.0)):
        for K, what in ((None, "NoneType"), (np.eye(4), "ndarray: .*aslinearoperator")):
            with pytest.raises(TypeError, match=rf"K must be a LinearOperator, such as an NTK, got {what}"):
                call(K, y)
        for dtype in (int, complex, np.float16, np.longdouble):
            with pytest.raises(TypeError, match=f"K must be of dtype float32 or float64, got {np.dtype(dtype)}"):
                call(LinearOperator((4, 4), matvec=lambda v: v, dtype=dtype), y)
        with pytest.raises(ValueError, match=r"K must be square, got shape \(4, 3\)"):
            call(aslinearoperator(np.ones((4, 3))), y)


@pytest.mark.parametrize("size", [1e39, 1e38, -1.1e30, 1e-31, 1e-50])
def test_magnitudes_beyond_single_precision(size):
    K = nf.NTK(nf.vanilla_cnn(), IMAGES["noise"](6, 6, 1, 0), channel_axis=-1)
    with pytest.raises(ValueError, match=r"y must have magnitudes .* for dtype float32, got "):
        nf.ridge(K, np.full((6, 6), size), 1.0)


@pytest.mark.parametrize(("dtype", "sizes"), [("float32", [1e-29, 1e29]), ("float64", [1e-119, 1e119])])
def test_filters_are_linear_over_the_range_of_the_type(dtype, sizes):
    image, y = IMAGES["noise"](6, 6, 1, 0), IMAGES["noise"](6, 6, 2, 1)
    K = nf.NTK(nf.vanilla_cnn(), image, dtype=dtype, channel_axis=-1)
    wanted = nf.gradient_descent(K, y, 50)
    for size in sizes:
        assert_close(nf.gradient_descent(K, size * y, 50) / size, wanted, TOLERANCE[dtype])


def test_endless_training():
    """The largest number of steps and the largest time must not overflow, and what Theta sees is fitted."""
    K = nf.NTK(nf.vanilla_cnn(1, 3), IMAGES["centred"](6, 6, 1, 0), dtype="float64", channel_axis=-1)
    y = IMAGES["noise"](6, 6, 1, 1)
    z, info = nf.gradient_descent(K, y, 2**53, return_info=True)
    assert_close(z, y, 1e-3)
    assert info.error < 1e-3
    assert_close(nf.gradient_flow(K, y, 1e308), y, 1e-3)


def test_a_bound_on_products_warns(problem):
    K, _, y = problem
    with pytest.warns(RuntimeWarning, match="max_products"):
        _, info = nf.gradient_descent(K, y, 500, max_products=3, tolerance=1e-7, return_info=True)
    assert info.products == 3


@pytest.mark.parametrize("columns", ["equal", "zero", "dependent", "one", "many"])
def test_dependent_columns(columns):
    image = IMAGES["noise"](5, 4, 3, 1)
    K = nf.NTK(nf.vanilla_cnn(1, 3), image, dtype="float64", channel_axis=-1)
    base = np.random.default_rng(2).standard_normal((20, 3))
    y = {
        "equal": base[:, [0, 0, 0]],
        "zero": base * [1, 0, 1],
        "dependent": base @ np.array([[1, 0, 1], [0, 1, 2], [0, 0, 0]]),
        "one": base[:, 0],
        "many": np.random.default_rng(3).standard_normal((20, 33)),
    }[columns]
    z, info = nf.gradient_descent(K, y, 77, return_info=True)
    matrix = kernel_matrix(K.network, image, channel_axis=-1)
    assert_close(z, apply(matrix, lambda x: 1 - (1 - info.learning_rate * x) ** 77, y), 1e-8)


def test_zero_target_and_zero_kernel():
    K = nf.NTK(nf.vanilla_cnn(), IMAGES["noise"](6, 6, 1, 0), channel_axis=-1)
    assert not nf.gradient_descent(K, np.zeros((6, 6)), 10).any()
    assert not nf.ridge(K, np.zeros((6, 6)), 1.0).any()
    flat = nf.NTK(nf.vanilla_cnn(), np.zeros((6, 6)))
    assert not nf.gradient_descent(flat, np.ones((6, 6)), 10).any()


def test_a_target_orthogonal_to_the_top_eigenvector_still_gets_the_kernels_rate():
    image = IMAGES["centred"](8, 8, 1, 0)
    K = nf.NTK(nf.vanilla_cnn(1, 3), image, dtype="float64", channel_axis=-1)
    values, vectors = np.linalg.eigh(K.dense())
    _, info = nf.gradient_descent(K, vectors[:, 3], 5, return_info=True)
    assert info.lambda_max == pytest.approx(values[-1], rel=1e-4)


def test_any_symmetric_operator_will_do():
    rng = np.random.default_rng(0)
    root = rng.standard_normal((30, 30))
    matrix = root @ root.T
    y = rng.standard_normal((30, 2))
    z, info = nf.gradient_descent(aslinearoperator(matrix), y, 40, return_info=True)
    assert_close(z, apply(matrix, lambda x: 1 - (1 - info.learning_rate * x) ** 40, y), 1e-8)


@pytest.mark.parametrize("method", ["lanczos", "iteration"])
@pytest.mark.parametrize("factor", [1.01, 10, 1000, 1e9])
@pytest.mark.parametrize("target", ["image", "noise", "pixel", "zeros"])
def test_diverging_rate_names_the_bound(problem, target, factor, method):
    K, matrix, image = problem
    K = nf.NTK(K.network, image, dtype=K.dtype, channel_axis=-1)  # knows no lambda_max from another call
    y = {
        "image": image.reshape(len(matrix), -1),
        "noise": np.random.default_rng(3).standard_normal(len(matrix)),
        "pixel": np.eye(len(matrix))[5],
        "zeros": np.zeros(len(matrix)),
    }[target]
    bound = 2 / np.linalg.eigvalsh(matrix)[-1]
    with pytest.raises(ValueError, match=r"learning_rate must be below 2/lambda_max = [0-9.e-]+") as error:
        nf.gradient_descent(K, y, 10, factor * bound, method=method)
    assert float(str(error.value).split("= ")[1].split(",")[0]) == pytest.approx(bound, rel=1e-3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda K, y: nf.gradient_descent(K, y, -1), ValueError, "steps must be at least 0, got -1"),
        (lambda K, y: nf.gradient_descent(K, y, 2**53 + 1), ValueError, r"steps must be at most 2\*\*53 = .*, got 90"),
        (lambda K, y: nf.gradient_descent(K, y, 10**400), ValueError, r"steps must be at most 2\*\*53"),
        (lambda K, y: nf.gradient_descent(K, y, 5, 10**400), ValueError, "learning_rate must be finite, got a number"),
        (lambda K, y: nf.gradient_descent(K, y, 1.5), TypeError, "steps must be an integer, got 1.5"),
        (lambda K, y: nf.gradient_descent(K, y, []), ValueError, "steps must not be empty"),
        (lambda K, y: nf.gradient_descent(K, y, "10"), TypeError, "steps must be"),
        (lambda K, y: nf.gradient_descent(K, y, 5, -0.1), ValueError, "learning_rate must be positive, got -0.1"),
        (lambda K, y: nf.gradient_descent(K, y, 5, method="adam"), ValueError, "method must be one of .* got 'adam'"),
        (lambda K, y: nf.gradient_descent(K, y, 5, tolerance=0), ValueError, "tolerance must be positive"),
        (lambda K, y: nf.gradient_descent(K, y, 5, max_products=0), ValueError, "max_products must be at least 1"),
        (lambda K, y: nf.gradient_descent(K, y[:-1], 5), ValueError, r"y must have shape .* got \(13, 11, 3\)"),
        (lambda K, y: nf.gradient_descent(K, y * np.nan, 5), ValueError, "y must be finite"),
        (lambda K, y: nf.gradient_descent(K, y * 1j * np.nan, 5), ValueError, "y must be finite, got 924 NaN"),
        (lambda K, y: nf.gradient_flow(K, y, -2.0), ValueError, "t must be >= 0, got -2.0"),
        (lambda K, y: nf.gradient_flow(K, y, float("nan")), ValueError, "t must be finite"),
        (lambda K, y: nf.ridge(K, y, 0.0), ValueError, "noise_var must be positive, got 0.0"),
    ],
)
def test_bad_input(problem, call, error, message):
    K, _, y = problem
    with pytest.raises(error, match=message):
        call(K, y)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(2, 25), st.integers(1, 5), st.integers(0, 2**31))
def test_lanczos_on_random_stacks(batch, d, n, seed):
    """A stack of problems, some of low rank, is solved in one run: f(A) Y for each."""
    rng = np.random.default_rng(seed)
    ranks = rng.integers(1, d + 1, batch)
    roots = [rng.standard_normal((d, rank)) for rank in ranks]
    matrices = np.stack([root @ root.T for root in roots])
    y = rng.standard_normal((batch, d, n))
    lanczos = BlockLanczos(lambda v: matrices @ v, y)
    while not lanczos.exhausted:
        lanczos.step()
        assert lanczos.products <= d + 1
    z = lanczos.assemble(lanczos.solve(), [ridge_filter(1.0)])[0]
    for matrix, target, result in zip(matrices, y, z, strict=True):
        wanted = apply(matrix, lambda x: x / (x + 1.0), target)
        assert np.abs(result - wanted).max() <= 1e-6 * max(1.0, np.abs(target).max())


# --- Operators that are not positive semi-definite ----------------------------------------------------------------

FILTERS = {
    "descent": lambda K, y: nf.gradient_descent(K, y, 50),
    "iteration": lambda K, y: nf.gradient_descent(K, y, 5, method="iteration"),
    "flow": lambda K, y: nf.gradient_flow(K, y, 1.0),
    "ridge": lambda K, y: nf.ridge(K, y, 0.1),
}


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shift", ["negative definite", "indefinite", "a little indefinite"])
def test_an_operator_with_negative_eigenvalues_is_refused(name, dtype, shift):
    rng = np.random.default_rng(0)
    Q = np.linalg.qr(rng.standard_normal((60, 60)))[0]
    values = np.linspace(0.1, 3.0, 60)
    if shift == "negative definite":
        values = -values
    else:
        values[30] = -0.5 if shift == "indefinite" else -0.03
    matrix = ((Q * values) @ Q.T).astype(dtype)
    y = rng.standard_normal((60, 2))
    with pytest.raises(ValueError, match=r"K must be positive semi-definite, but it has an eigenvalue of -\S+ or less"):
        FILTERS[name](aslinearoperator(matrix), y)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("rank", [0, 1, 20, 60])
def test_rounding_of_a_singular_operator_is_no_negative_eigenvalue(name, dtype, rank):
    factor = np.random.default_rng(rank).standard_normal((60, rank))
    y = np.random.default_rng(0).standard_normal((60, 2))
    result = FILTERS[name](aslinearoperator((factor @ factor.T).astype(dtype)), y)
    assert np.isfinite(result).all()


@pytest.mark.parametrize("name", [*HARD, "centred"])
@pytest.mark.parametrize("net", ["1", "deep", "unet"])
def test_no_kernel_is_refused_for_its_rounding(name, net):
    """Products of float32 kernels are worth 1e-5 of the largest entry, in operators that are made of them, too."""
    network = {"1": nf.vanilla_cnn(1, 3), "deep": nf.vanilla_cnn(4, 3), "unet": nf.unet(1)}[net]
    image = IMAGES[name](12, 12, 2, 0)
    y = IMAGES["noise"](12, 12, 2, 1)
    for kind in (nf.NTK, nf.NNGP):
        K = kind(network, image, channel_axis=-1, threads=1)
        for operator in (K, 2.0 * K, aslinearoperator(K.dense())):
            for call in FILTERS.values():
                assert np.isfinite(call(operator, y.reshape(144, 2))).all()
