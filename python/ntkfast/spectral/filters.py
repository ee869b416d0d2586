"""Filters that the kernel defines: what training to a given time, or ridge regression, does to an image.

With the eigenvalues lambda of Theta, each is a function f(Theta) y:

    gradient descent, t steps of size eta:   f(lambda) = 1 - (1 - eta lambda)^t
    gradient flow to the time t:             f(lambda) = 1 - exp(-t lambda)
    ridge / Gaussian process regression:     f(lambda) = lambda / (lambda + noise_var)

Source: Tachella, Tang, Davies, CVPR 2021, equation for "twicing"; Jacot et al., NeurIPS 2018.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, overload

import numpy as np
from scipy.sparse.linalg import LinearOperator

from .. import _check
from ..engine.arrays import Arrays, namespace
from ..engine.backend import backend_of, budget_of, filter_arrays
from ..engine.memory import require_memory
from ..images import AnyArray, Columns, as_columns
from ..pixel_operator import PixelOperator, over_scale, require_operator
from .lanczos import (
    BlockLanczos,
    Filter,
    Solution,
    gradient_descent_filter,
    gradient_flow_filter,
    lanczos_bytes,
    ridge_filter,
)

__all__ = ["FilterInfo", "gradient_descent", "gradient_flow", "ridge"]

METHODS = ("lanczos", "iteration")

# Error bound, relative to the result, at which Lanczos stops: what the engine's float32 products are worth.
TOLERANCE = {"float32": 1e-5, "float64": 1e-9}

# A negative eigenvalue of more than this share of the largest magnitude of all, times the root of d, is no rounding: 20
# units of float32, of which kernels of the tests' hardest images have 0.05.  It serves float64 too, which multiples and
# sums of float32 operators say that they are.
ROUNDING = 20 * float(np.finfo(np.float32).eps)

# Residual of the top eigenpair, relative to the eigenvalue, at which lambda_max counts as found: its error is the
# square.
TOP_RESIDUAL = 1e-3
MAX_PRODUCTS = 300

# Products that filters usually take, 15 to 30: for so many there must be memory before any work.
USUAL_PRODUCTS = 30

# Vectors in double precision that a step of the plain iteration holds for each column beside its path: y, the zeros it
# began with, and what becomes of a product.
ITERATION_VECTORS = 5


@dataclass(frozen=True)
class FilterInfo:
    """How a filter was computed.

    Attributes
    ----------
    products : int
        Products with Theta; 0 for a LowRank.
    error : float
        Bound on the result's error, relative to its norm, the largest over all requested times; it leaves out rounding
        (1e-6 in float32).  nan for the plain iteration.
    lambda_max : float
        Largest eigenvalue found, in the kernel's units; nan where none was needed.
    learning_rate : float
        Step size used; nan for the other filters.

    Examples
    --------
    >>> y = np.random.default_rng(0).standard_normal((8, 8))
    >>> K = nf.NTK(nf.vanilla_cnn(1, 3), y)
    >>> z, info = nf.gradient_descent(K, y, steps=20, return_info=True)
    >>> info.products < 64, info.error < 1e-4, info.learning_rate == 1 / info.lambda_max
    (True, True, True)
    """

    products: int
    error: float
    lambda_max: float = float("nan")
    learning_rate: float = float("nan")


@overload
def gradient_descent(
    K: LinearOperator,
    y: np.ndarray | Sequence[Any],
    steps: int | Sequence[int] = ...,
    learning_rate: float | None = ...,
    *,
    method: str = ...,
    tolerance: float | None = ...,
    max_products: int = ...,
    return_info: Literal[False] = ...,
) -> np.ndarray: ...


@overload
def gradient_descent(
    K: LinearOperator,
    y: AnyArray,
    steps: int | Sequence[int] = ...,
    learning_rate: float | None = ...,
    *,
    method: str = ...,
    tolerance: float | None = ...,
    max_products: int = ...,
    return_info: Literal[False] = ...,
) -> AnyArray: ...


@overload
def gradient_descent(
    K: LinearOperator,
    y: np.ndarray | Sequence[Any],
    steps: int | Sequence[int] = ...,
    learning_rate: float | None = ...,
    *,
    method: str = ...,
    tolerance: float | None = ...,
    max_products: int = ...,
    return_info: Literal[True],
) -> tuple[np.ndarray, FilterInfo]: ...


@overload
def gradient_descent(
    K: LinearOperator,
    y: AnyArray,
    steps: int | Sequence[int] = ...,
    learning_rate: float | None = ...,
    *,
    method: str = ...,
    tolerance: float | None = ...,
    max_products: int = ...,
    return_info: Literal[True],
) -> tuple[AnyArray, FilterInfo]: ...


def gradient_descent(
    K: LinearOperator,
    y: Any,
    steps: int | Sequence[int] = 200,
    learning_rate: float | None = None,
    *,
    method: str = "lanczos",
    tolerance: float | None = None,
    max_products: int = MAX_PRODUCTS,
    return_info: bool = False,
) -> Any:
    """Output of the infinitely wide network after gradient descent on ``y``, from a zero output.

    z_{t+1} = z_t + eta Theta (y - z_t), z_0 = 0, hence z_t = (I - (I - eta Theta)^t) y.

    Parameters
    ----------
    K : NTK, LowRank, or symmetric positive semi-definite LinearOperator, shape (d, d)
        Of a LowRank the filter is computed from its eigenpairs, exactly and without products.
    y : array_like, shape (d,), (d, n), (H, W) or (H, W, C), real
        The target, usually the noisy image less its mean.  For a kernel on a GPU it may be CuPy's or PyTorch's, on the
        same GPU: the filter then stays there, and so does the result.
    steps : int or sequence of int
        Number of steps t, 0 to 2**53; a sequence gives the whole path for the price of its longest.
    learning_rate : float, optional
        eta > 0, in units of one over the kernel's; default 1/lambda_max.
    method : {"lanczos", "iteration"}
        "iteration" takes every step as written above, one product each: slow, and the oracle of the other.
    tolerance : float, optional
        Relative error bound at which Lanczos stops; default 1e-5 (float32) or 1e-9 (float64).
    max_products : int
        Bound on the products of Lanczos, which keeps as many vectors for each column of y, or as many as there is
        memory for; a RuntimeWarning says if the tolerance was not reached.
    return_info : bool
        Also return a :class:`FilterInfo`.

    Returns
    -------
    ndarray, or what y is
        Of the shape of y, with a leading axis if ``steps`` is a sequence; and the FilterInfo if asked for.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or learning_rate >= 2/lambda_max, where the iteration
        diverges.
    MemoryError
        Before any work, if the vectors of 30 products, or of max_products if that is less, do not fit, or with
        "iteration" the images of all steps asked for; the message has the bytes and the option that would.

    Examples
    --------
    >>> y = np.random.default_rng(0).standard_normal((8, 8))
    >>> K = nf.NTK(nf.vanilla_cnn(1, 3), y, dtype="float64")
    >>> path = nf.gradient_descent(K, y, steps=[0, 1, 2])
    >>> path.shape
    (3, 8, 8)
    >>> eta = 1 / K.lambda_max
    >>> bool(np.allclose(path[2], path[1] + eta * K.apply(y - path[1])))
    True
    """
    require_operator("K", K)
    times, single = _check.one_or_more("steps", steps, _check.steps)
    _check.choice("method", method, METHODS)
    eta = None if learning_rate is None else _check.positive("learning_rate", learning_rate)
    columns = as_columns(K, "y", y)
    values, arrays = columns.values, columns.arrays
    settings = Settings(_tolerance(K, tolerance), _check.at_least("max_products", max_products, 1))
    if method == "lanczos":
        z, info = descend(K, values, times, eta, settings)
    else:
        _require_iteration(K, filter_arrays(K, arrays), values.shape[1], len(times))
        kernel, scale = over_scale(K)
        lambda_max = largest_eigenvalue(kernel, arrays, settings)
        rate = stable_learning_rate(eta, lambda_max, scale)
        z = _iterate(kernel, values, times, rate)
        info = FilterInfo(max(times), float("nan"), lambda_max * scale, rate / scale)
    return _result(z, columns, single, info, return_info)


def descend(
    K: LinearOperator, y: Any, times: Sequence[int], eta: float | None, settings: Settings
) -> tuple[Any, FilterInfo]:
    """:func:`gradient_descent` of columns (d, n) by Lanczos: z after each number of steps, (times, d, n)."""
    kernel, scale = over_scale(K)

    def filters(lambda_max: float, _: Solution | None) -> list[Filter]:
        rate = stable_learning_rate(eta, lambda_max, scale)
        return [gradient_descent_filter(t, rate) for t in times]

    z, info = _filtered(kernel, y, filters, settings, with_lambda_max=True)
    rate = stable_learning_rate(eta, info.lambda_max, scale)
    return z, replace(info, lambda_max=info.lambda_max * scale, learning_rate=rate / scale)


@overload
def gradient_flow(
    K: LinearOperator,
    y: np.ndarray | Sequence[Any],
    t: float | Sequence[float],
    *,
    tolerance: float | None = ...,
    max_products: int = ...,
    return_info: Literal[False] = ...,
) -> np.ndarray: ...


@overload
def gradient_flow(
    K: LinearOperator,
    y: AnyArray,
    t: float | Sequence[float],
    *,
    tolerance: float | None = ...,
    max_products: int = ...,
    return_info: Literal[False] = ...,
) -> AnyArray: ...


@overload
def gradient_flow(
    K: LinearOperator,
    y: np.ndarray | Sequence[Any],
    t: float | Sequence[float],
    *,
    tolerance: float | None = ...,
    max_products: int = ...,
    return_info: Literal[True],
) -> tuple[np.ndarray, FilterInfo]: ...


@overload
def gradient_flow(
    K: LinearOperator,
    y: AnyArray,
    t: float | Sequence[float],
    *,
    tolerance: float | None = ...,
    max_products: int = ...,
    return_info: Literal[True],
) -> tuple[AnyArray, FilterInfo]: ...


def gradient_flow(
    K: LinearOperator,
    y: Any,
    t: float | Sequence[float],
    *,
    tolerance: float | None = None,
    max_products: int = MAX_PRODUCTS,
    return_info: bool = False,
) -> Any:
    """Gradient descent with infinitely small steps: dz/dt = Theta (y - z), z(0) = 0, so z(t) = (I - exp(-t Theta)) y.

    Parameters
    ----------
    K, y, tolerance, max_products, return_info
        As for :func:`gradient_descent`.
    t : float or sequence of float
        Time >= 0, in units of one over the kernel's; n steps of size eta take about the time n*eta.

    Returns
    -------
    ndarray
        Of the shape of y, with a leading axis if ``t`` is a sequence; and a :class:`FilterInfo` if asked for.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As :func:`gradient_descent`; it has no step size that could be too large.

    Notes
    -----
    Source: Jacot, Gabriel, Hongler, NeurIPS 2018.

    Examples
    --------
    >>> y = np.random.default_rng(0).standard_normal((8, 8))
    >>> K = nf.NTK(nf.vanilla_cnn(1, 3), y, dtype="float64")
    >>> small_steps = nf.gradient_descent(K, y, steps=10_000, learning_rate=1e-5)
    >>> bool(np.allclose(nf.gradient_flow(K, y, t=0.1), small_steps, atol=1e-4))
    True
    """
    times, single = _check.one_or_more("t", t, _check.not_negative)
    kernel, scale = over_scale(K)
    filters = [gradient_flow_filter(time * scale) for time in times]
    return _apply(kernel, y, filters, single, tolerance, max_products, return_info)


@overload
def ridge(
    K: LinearOperator,
    y: np.ndarray | Sequence[Any],
    noise_var: float | Sequence[float],
    *,
    tolerance: float | None = ...,
    max_products: int = ...,
    return_info: Literal[False] = ...,
) -> np.ndarray: ...


@overload
def ridge(
    K: LinearOperator,
    y: AnyArray,
    noise_var: float | Sequence[float],
    *,
    tolerance: float | None = ...,
    max_products: int = ...,
    return_info: Literal[False] = ...,
) -> AnyArray: ...


@overload
def ridge(
    K: LinearOperator,
    y: np.ndarray | Sequence[Any],
    noise_var: float | Sequence[float],
    *,
    tolerance: float | None = ...,
    max_products: int = ...,
    return_info: Literal[True],
) -> tuple[np.ndarray, FilterInfo]: ...


@overload
def ridge(
    K: LinearOperator,
    y: AnyArray,
    noise_var: float | Sequence[float],
    *,
    tolerance: float | None = ...,
    max_products: int = ...,
    return_info: Literal[True],
) -> tuple[AnyArray, FilterInfo]: ...


def ridge(
    K: LinearOperator,
    y: Any,
    noise_var: float | Sequence[float],
    *,
    tolerance: float | None = None,
    max_products: int = MAX_PRODUCTS,
    return_info: bool = False,
) -> Any:
    """Kernel ridge regression, the mean of Gaussian process regression: Theta (Theta + noise_var I)^-1 y.

    Parameters
    ----------
    K, y, tolerance, max_products, return_info
        As for :func:`gradient_descent`.
    noise_var : float or sequence of float
        Noise variance > 0, in the kernel's units.

    Returns
    -------
    ndarray
        Of the shape of y, with a leading axis if ``noise_var`` is a sequence; and a :class:`FilterInfo` if asked for.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As :func:`gradient_descent`; it has no step size that could be too large.

    Notes
    -----
    Source: Rasmussen, Williams, "Gaussian Processes for Machine Learning", MIT Press 2006, section 2.2.

    Examples
    --------
    >>> y = np.random.default_rng(0).standard_normal((8, 8))
    >>> K = nf.NTK(nf.vanilla_cnn(1, 3), y, dtype="float64")
    >>> z = nf.ridge(K, y, noise_var=0.1)
    >>> bool(np.allclose(K.apply(y), K.apply(z) + 0.1 * z))
    True
    """
    variances, single = _check.one_or_more("noise_var", noise_var, _check.positive)
    kernel, scale = over_scale(K)
    filters = [ridge_filter(variance / scale) for variance in variances]
    return _apply(kernel, y, filters, single, tolerance, max_products, return_info)


@dataclass(frozen=True)
class Settings:
    """When Lanczos stops: at this bound on the relative error, or after so many products.

    ``hint`` is the option of a caller that has no max_products, for where the vectors do not fit.
    """

    tolerance: float
    max_products: int
    hint: str | None = None


def _apply(
    K: LinearOperator,
    y: Any,
    filters: list[Filter],
    single: bool,
    tolerance: float | None,
    max_products: int,
    return_info: bool,
) -> Any:
    require_operator("K", K)
    columns = as_columns(K, "y", y)
    settings = Settings(_tolerance(K, tolerance), _check.at_least("max_products", max_products, 1))
    z, info = _filtered(K, columns.values, lambda *_: filters, settings, with_lambda_max=False)
    return _result(z, columns, single, info, return_info)


def _filtered(
    K: LinearOperator,
    y: Any,
    filters: Callable[[float, Solution | None], list[Filter]],
    settings: Settings,
    *,
    with_lambda_max: bool,
) -> tuple[Any, FilterInfo]:
    """f(Theta) y for each of ``filters(lambda_max)``, (filters, d, n): by the eigenpairs that K has, or by Lanczos."""
    eigenpairs = getattr(K, "spectral_filter", None)
    if eigenpairs is None:
        return run_lanczos(K, y, filters, settings, with_lambda_max=with_lambda_max)
    functions = [f.value for f in filters(K.lambda_max, None)]
    count, n = len(functions), y.shape[1]
    needed = np.dtype(K.dtype).itemsize * K.shape[0] * n * (count + 2)  # beside the results y and a multiple of it
    what = f"a filter's {_counted(count, 'result')} with {_counted(n, 'column')}"
    require_memory(what, needed, settings.hint or _smaller(count > 1, n))
    return eigenpairs(functions, y), FilterInfo(0, 0.0, K.lambda_max)


def run_lanczos(
    K: LinearOperator,
    y: Any,
    filters: Callable[[float, Solution | None], list[Filter]],
    settings: Settings,
    *,
    with_lambda_max: bool,
) -> tuple[Any, FilterInfo]:
    """f(Theta) y for each of ``filters(lambda_max, solution)``, shape (filters, d, n); an array of y's kind.

    The filters may depend on the projected problem, whose columns are those of y and, where lambda_max is looked for,
    :func:`random_direction`; it is None for a y of zeros.
    """
    dtype = np.dtype(K.dtype)
    n = y.shape[1]
    own = namespace(y)
    arrays = filter_arrays(K, own)
    known = getattr(K, "lambda_max", None)
    probe = with_lambda_max and known is None
    count = len(filters(0.0, None))
    most = _products_that_fit(K, arrays, n, n + probe, count, settings)
    start = arrays.asarray(y, dtype)
    if probe:
        # One random direction beside y, at the cost of one more column: y alone may be orthogonal to the top
        # eigenvector.
        scale = own.largest(y) or 1.0
        start = arrays.concatenate([start, arrays.asarray(scale * random_direction(y.shape[0]), dtype)], axis=1)
    lanczos = BlockLanczos(lambda v: arrays.asarray(K.matmat(v[0]), dtype)[None], start[None], arrays)
    if lanczos.exhausted:  # y is zero
        return own.zeros((count, *y.shape), dtype), FilterInfo(0, 0.0, float("nan") if known is None else known)

    exact = isinstance(K, PixelOperator)  # positive semi-definite by construction, up to what its numbers are worth
    rounding = math.inf if exact else ROUNDING * math.sqrt(K.shape[0])
    run = _converge(lanczos, n, filters, settings.tolerance, most, known, probe, rounding)
    if not lanczos.exhausted and not run.reached:
        more = "raise max_products" if most == settings.max_products else "there is no memory for more"
        warnings.warn(
            f"error bound {run.error:.1e} after {lanczos.products} products is above tolerance "
            f"{settings.tolerance:.1e}: {more}",
            RuntimeWarning,
            stacklevel=5,
        )
    elif probe and hasattr(K, "lambda_max"):
        K.lambda_max = run.top
    info = FilterInfo(lanczos.products, run.error, float("nan") if run.top is None else run.top)
    return _as(own, arrays, lanczos.assemble(run.solution, run.wanted, n)[:, 0]), info


@dataclass(frozen=True)
class _Converged:
    """Where Lanczos stopped.

    Attributes
    ----------
    solution : Solution
    wanted : list of Filter
        Those of the last ``top``.
    top : float or None
        lambda_max, or the largest Ritz value where it was looked for; None where neither was needed.
    error : float
        Bound on the error of the filters, relative to each result.
    reached : bool
        Whether it is within the tolerance, and lambda_max found where it was looked for.
    """

    solution: Solution
    wanted: list[Filter]
    top: float | None
    error: float
    reached: bool


def _converge(
    lanczos: BlockLanczos,
    n: int,
    filters: Callable[[float, Solution | None], list[Filter]],
    tolerance: float,
    most: int,
    known: float | None,
    probe: bool,
    rounding: float,
) -> _Converged:
    """Step until the filters of the first n columns are within ``tolerance``, for up to ``most`` products.

    With ``probe`` the filters' lambda_max is looked for on the way, otherwise it is the ``known`` one.
    """
    due = 0
    while True:
        lanczos.step()
        if lanczos.products < min(due, most) and not lanczos.exhausted:
            continue
        # Every step at first; later the eigenproblems would take longer than the products.
        due = lanczos.products + 1 + lanczos.products // 16
        solution, last = lanczos.solve(), lanczos.products >= most or lanczos.exhausted
        _require_positive(lanczos, solution, rounding)
        top = float(solution.values[0, -1]) if probe else known
        found = not probe or solution.top_residual() <= TOP_RESIDUAL
        try:
            wanted = filters(0.0 if top is None else top, solution)
        except DivergingRateError:
            # True of lambda_max too, which the Ritz value approaches from below; but the message names it.
            if solution.top_residual() <= TOP_RESIDUAL or last:
                raise
            continue
        error = solution.of_columns(n).error(wanted)
        reached = found and error <= tolerance
        if reached or last:
            return _Converged(solution, wanted, top, error, reached)


def _require_positive(lanczos: BlockLanczos, solution: Solution, rounding: float) -> None:
    """Refuse an operator with an eigenvalue below zero by more than this share of the largest magnitude."""
    bound = rounding * max(float(solution.values.max()), float(-solution.lowest.min()))
    if solution.lowest.min() >= -bound:
        return
    quotient = lanczos.lowest_quotient(solution)
    if quotient < -bound:
        raise ValueError(
            f"K must be positive semi-definite, but it has an eigenvalue of {quotient:.3g} or less; rounding "
            f"explains {-bound:.1g} at most"
        )


def _products_that_fit(
    K: LinearOperator, arrays: Arrays, columns: int, with_probe: int, filters: int, settings: Settings
) -> int:
    """Products, up to ``max_products``, whose vectors fit where ``arrays`` are; refuses less than the usual number."""
    d, dtype = K.shape[0], np.dtype(K.dtype)
    budget = budget_of(arrays).state(_product_bytes(K, arrays))

    def needed(products: int, results: int = filters * columns) -> int:
        return lanczos_bytes(d, with_probe, products, results, dtype.itemsize)

    most = min(settings.max_products, d + 1)  # each adds a dimension at least
    fit = budget.most(most, needed)
    if fit < min(most, USUAL_PRODUCTS):
        least = min(most, USUAL_PRODUCTS)
        fewer = filters > 1 and budget.fits(needed(least, columns))
        hint = settings.hint or (f"max_products={fit} would fit" if fit and not fewer else _smaller(fewer, columns))
        what = f"a filter's vectors of {least} products with {_counted(with_probe, 'column')}"
        what += f", and {_counted(filters, 'result')}," * (filters > 1)
        budget.require(what, hint, needed(least))
    return settings.max_products if fit == most else fit


def _require_iteration(K: LinearOperator, arrays: Arrays, columns: int, times: int) -> None:
    """Refuse a path of the plain iteration that does not fit where ``arrays`` are."""
    budget = budget_of(arrays).state(_product_bytes(K, arrays))
    budget.state(iteration_bytes(K.shape[0], columns, times, np.dtype(K.dtype).itemsize))
    what = f"a path of {_counted(times, 'image')} with {_counted(columns, 'column')}"
    budget.require(what, _smaller(times > 1, columns))


def iteration_bytes(d: int, n: int, times: int, itemsize: int) -> int:
    """Bytes that the plain iteration with n columns takes beside its products."""
    # At the end the path is there once more as one array, in double precision and in the operator's.
    return d * n * (8 * (times + max(ITERATION_VECTORS, times + 2)) + itemsize * (times + 2))


def _product_bytes(K: LinearOperator, arrays: Arrays) -> int:
    """Return the bytes that a product with one column takes beside its vectors, where these are."""
    beside = getattr(K, "working_bytes", lambda columns: 0)
    return int(beside(1)) if backend_of(K).holds(arrays) else 0


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _smaller(fewer_times: bool, columns: int) -> str:
    if fewer_times:
        return "ask for fewer steps, times or noise levels at once"
    return "filter fewer columns of y at a time, or a smaller image" if columns > 1 else "use a smaller image"


def random_direction(d: int) -> np.ndarray:
    """Standard normal numbers, always the same: shape (d, 1)."""
    return np.random.default_rng(0).standard_normal((d, 1))


def _as(own: Arrays, arrays: Arrays, result: Any) -> Any:
    """The result as the caller's kind of array, where the filter has worked on another."""
    return result if own.device == arrays.device else arrays.to_host(result)


def largest_eigenvalue(K: LinearOperator, arrays: Arrays, settings: Settings) -> float:
    """lambda_max, from a run of its own on ``arrays`` if no filter has found it yet."""
    known = getattr(K, "lambda_max", None)
    if known is not None:
        return float(known)
    nothing = arrays.zeros((K.shape[0], 1), K.dtype)  # beside it runs the random direction, which is all that is wanted
    _, info = run_lanczos(K, nothing, lambda *_: [ridge_filter(1.0)], settings, with_lambda_max=True)
    return info.lambda_max


class DivergingRateError(ValueError):
    """A step size with which gradient descent diverges."""


def stable_learning_rate(eta: float | None, lambda_max: float, scale: float = 1.0) -> float:
    """The step size: eta if gradient descent converges with it, 1/lambda_max by default.

    With a scale, lambda_max and the step size are those of the kernel over it, eta is that of the kernel itself.
    """
    if lambda_max == 0.0:
        return 1.0 if eta is None else eta * scale  # a zero kernel: any step size does nothing
    if eta is None:
        return 1.0 / lambda_max
    if eta * scale * lambda_max >= 2.0:
        own = lambda_max * scale
        raise DivergingRateError(
            f"learning_rate must be below 2/lambda_max = {2.0 / own:.6g}, where gradient descent diverges "
            f"(1/lambda_max = {1.0 / own:.6g} is the default), got {eta:.6g}"
        )
    return eta * scale


def _iterate(K: LinearOperator, y: Any, times: list[int], eta: float) -> Any:
    """The path at ``times``, step by step; an array of y's kind."""
    own = namespace(y)
    arrays = filter_arrays(K, own)
    y = arrays.asarray(y, np.float64)
    z = arrays.zeros(y.shape, np.float64)
    path = {0: z}
    for step in range(1, max(times) + 1):
        z = z + eta * arrays.asarray(K.matmat(arrays.asarray(y - z, K.dtype)), np.float64)
        if step in times:
            path[step] = z
    return _as(own, arrays, arrays.asarray(arrays.stack([path[t] for t in times]), K.dtype))


def _tolerance(K: LinearOperator, value: Any) -> float:
    return TOLERANCE[np.dtype(K.dtype).name] if value is None else _check.positive("tolerance", value)


def _result(z: Any, columns: Columns, single: bool, info: FilterInfo, return_info: bool) -> Any:
    """Return z (times, d, n) as the caller laid out y, and the info if it was asked for."""
    out = columns.restored(z[0] if single else z)
    return (out, info) if return_info else out
