"""These test what restoration refuses: bad arguments, and operators that are none."""

import numpy as np
import pytest
from scipy import sparse
from scipy.sparse.linalg import LinearOperator

import ntkfast as nf
from restoring import NETWORK, SHAPE, known, masked


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"y": np.ones(7)}, ValueError, r"y must have shape \(30,\) or \(6, 5\), .* got \(7,\)"),
        ({"y": np.ones((30, 3))}, ValueError, r"y must have shape .* channel_axis=None, got \(30, 3\)"),
        ({"y": np.full(30, np.nan)}, ValueError, "y must be finite, got 30 NaN"),
        ({"y": np.ones(30, complex)}, TypeError, "y must be a real numeric array"),
        ({"y": None}, TypeError, "y must be a real numeric array"),
        ({"channel_axis": 1}, ValueError, "channel_axis must be an axis of y"),
        ({"A": "blur"}, TypeError, "A must be a LinearOperator or a matrix, got str"),
        ({"A": np.ones((30, 120)) * 1j}, TypeError, "A must be real, got dtype complex128"),
        ({"A": np.ones((30, 120))}, ValueError, r"shape must be given, \(H, W\)"),
        ({"A": np.ones((30, 120)), "shape": (11, 10)}, ValueError, r"shape must have the size .*120 col.*\(11, 10\)"),
        ({"shape": (10, 12)}, ValueError, r"shape must have the size .* got \(10, 12\)"),
        ({"A": LinearOperator((30, 120), matvec=lambda v: v[:30], dtype=float)}, TypeError, "A must have an adjoint"),
        ({"guide": np.ones((10, 12))}, ValueError, r"guide must have the size .* got \(10, 12\)"),
        ({"guide": np.full(SHAPE, np.inf)}, ValueError, "guide must be finite"),
        ({"sigma": -1.0}, ValueError, "sigma must be >= 0, got -1.0"),
        ({"sigma": float("nan")}, ValueError, "sigma must be finite"),
        ({"sigma": "5"}, TypeError, "sigma must be a real number"),
        ({"method": nf.Tiles()}, TypeError, r"method must be an ntkfast.Landweber, got Tiles\(\)"),
        ({"compute": {}}, TypeError, "compute must be an ntkfast.Compute, got {}"),
        ({"rng": 1.5}, TypeError, "rng must be an integer, None or a numpy.random.Generator, got 1.5"),
    ],
)
def test_bad_arguments(change, error, message):
    arguments = {"y": np.arange(30.0), "A": nf.Downsampling(SHAPE, 2)} | change
    with pytest.raises(error, match=message):
        nf.restore_ntk(**arguments)


MASK = known(SHAPE).ravel().astype(float)


@pytest.mark.parametrize(
    "A",
    [
        masked(lambda v: MASK * v, lambda v: 3 * MASK * v + 0.1),
        masked(lambda v: MASK * v, lambda v: 1.01 * MASK * v),
        masked(lambda v: MASK * v, lambda v: MASK * v + 0.1),
        masked(lambda v: MASK * v + 0.1),
        masked(lambda v: np.roll(v, 1)),
        masked(lambda v: MASK * v, lambda v: v),
        masked(np.cumsum),
        masked(lambda v: 1e-9 * np.roll(v, 1)),
        masked(lambda v: v[:30], lambda v: np.repeat(v, 4), shape=(30, 120)),
    ],
)
@pytest.mark.parametrize("rng", range(3))
def test_an_rmatvec_that_is_no_adjoint_is_refused(A, rng):
    message = r"A must have its adjoint as rmatvec, <A u, v> = <u, A\^T v>: .* left side is \S+ and the right side \S+$"
    with pytest.raises(ValueError, match=message):
        nf.restore_ntk(np.ones(A.shape[0]), A, shape=SHAPE, rng=rng)


@pytest.mark.parametrize("rng", range(3))
def test_operators_in_single_precision_pass(rng):
    """Rounding is far below what the test lets pass, in operators of any size and scale."""
    single = sparse.random(500, 120, 0.3, random_state=0, dtype=np.float32)
    y = single @ np.ones(120)
    for scale in (1e-12, 1.0, 1e12):
        A = (np.float32(scale) * single).tocsr()
        method = nf.Landweber(NETWORK, 3)
        assert np.isfinite(nf.restore_ntk(scale * y, A, shape=SHAPE, method=method, rng=rng)).all()


@pytest.mark.parametrize(
    ("A", "message"),
    [
        (masked(lambda v: np.full(120, np.nan)), "A must give finite numbers, got 120 NaN .* from its matvec"),
        (masked(lambda v: v, lambda v: v / np.r_[0.0, np.ones(119)]), "got 1 NaN or infinite values from its rmatvec"),
        (masked(lambda v: v[:90]), "A must give 120 numbers for 120, but its matvec failed: cannot reshape array"),
        (masked(lambda v: v, lambda v: v[:9]), "A must give 120 numbers for 120, but its rmatvec failed: "),
    ],
)
def test_what_an_operator_gives_is_blamed_on_it(A, message):
    with np.errstate(divide="ignore"), pytest.raises(ValueError, match=message):
        nf.restore_ntk(np.ones(120), A, shape=SHAPE)


def test_nan_that_comes_later_is_blamed_on_the_operator():
    calls = []

    def late(v):
        calls.append(1)
        return v if len(calls) < 8 else np.full_like(v, np.nan)

    with pytest.raises(ValueError, match="A must give finite numbers"):
        nf.restore_ntk(np.arange(120.0), masked(late), shape=SHAPE)
