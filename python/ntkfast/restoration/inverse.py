"""Inverse problems: what an infinitely wide network makes of incomplete, blurred or coarse data, in closed form.

Gradient descent of a network's output z on the misfit |A z - y|^2/2, in the infinite-width limit:

    z_{t+1} = z_t + eta Theta A^T (y - A z_t),  z_0 = 0      =>   z_t = Theta A^T f_t(A Theta A^T) y,
    f_t(x) = (1 - (1 - eta x)^t)/x

It is the Landweber iteration in the geometry of Theta, and the closed form of the deep image prior (Ulyanov, Vedaldi,
Lempitsky, CVPR 2018) with a picture as the network's input.  One block Lanczos run on A Theta A^T serves every t.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, TypeVar, overload

import numpy as np
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from .. import _check
from ..engine.arrays import NUMPY
from ..engine.backend import Backend, choose
from ..engine.memory import Budget
from ..engine.program import Problem
from ..images import as_data, as_image, as_size, next_multiple, without_mean
from ..kernel import NTK
from ..network import Network, autoencoder, vanilla_cnn
from ..spectral.filters import (
    USUAL_PRODUCTS,
    Settings,
    largest_eigenvalue,
    random_direction,
    run_lanczos,
    stable_learning_rate,
)
from ..spectral.lanczos import Filter, Solution, lanczos_bytes, landweber_filter
from .first_guess import first_guess
from .operators import ImageOperator
from .options import Compute, Landweber, problem_of
from .progress import ProductsDone

__all__ = ["RestoreInfo", "restore_ntk"]

Data = TypeVar("Data")

# Without noise, steps are taken until |A z - y| is this share of |y - A mean|: the rounding of 8 bits is about that.
NOISELESS_MISFIT = 5e-3
MAX_STEPS = 10**6
ROUNDING = 1e-12

# Error of the dot-product test, relative to the norms: far above the rounding of an A in single precision.
ADJOINT_TOLERANCE = 1e-3

# Vectors over the pixels, in double precision, that become of one column in a product with A Theta A^T; and of one
# channel of a result, which comes from such a product.
PRODUCT_VECTORS, RESULT_VECTORS = 4, 5


@dataclass(frozen=True)
class RestoreInfo:
    """This says what :func:`restore_ntk` did.

    Attributes
    ----------
    method : Landweber
        As it was used, with the network that was taken.
    guide : ndarray, shape (H, W, C)
        The picture of which the first pass's kernel was made.
    steps : tuple of int
        Steps of gradient descent of each pass; of a path, its longest.
    learning_rate, lambda_max : tuple of float
        Step size of each pass, and the largest eigenvalue of its A Theta A^T.
    products : int
        Products with Theta, of all passes.
    error : float
        Bound on the error of A z, relative to the norm of A z less the mean, the largest over all passes and times; it
        leaves out rounding.  nan for the plain iteration.
    misfit : float or tuple of float
        |A z - y|/sqrt(n C), root mean square per datum of the result, or of each image of a path; somewhat below sigma
        for steps chosen from it.
    passes : int
        Passes in all.
    seconds : float

    Examples
    --------
    >>> data = np.arange(64.0).reshape(8, 8)
    >>> _, info = nf.restore_ntk(data, nf.Inpainting(np.eye(8)), method=nf.Landweber(steps=20), return_info=True)
    >>> info.steps, info.passes, info.guide.shape
    ((20,), 1, (8, 8, 1))
    """

    method: Landweber
    guide: np.ndarray = field(repr=False, compare=False)
    steps: tuple[int, ...]
    learning_rate: tuple[float, ...]
    lambda_max: tuple[float, ...]
    products: int
    error: float
    misfit: float | tuple[float, ...]
    passes: int
    seconds: float


@overload
def restore_ntk(
    y: np.ndarray, A: Any, sigma: float | None = None, *, channel_axis: int | None = None, guide: Any = None,
    shape: tuple[int, int] | None = None, method: Landweber | None = None, compute: Compute | None = None,
    rng: Any = 0, return_info: Literal[False] = False,
) -> np.ndarray: ...  # fmt: skip


@overload
def restore_ntk(
    y: np.ndarray, A: Any, sigma: float | None = None, *, channel_axis: int | None = None, guide: Any = None,
    shape: tuple[int, int] | None = None, method: Landweber | None = None, compute: Compute | None = None,
    rng: Any = 0, return_info: Literal[True],
) -> tuple[np.ndarray, RestoreInfo]: ...  # fmt: skip


@overload
def restore_ntk(
    y: Data, A: Any, sigma: float | None = None, *, channel_axis: int | None = None, guide: Any = None,
    shape: tuple[int, int] | None = None, method: Landweber | None = None, compute: Compute | None = None,
    rng: Any = 0, return_info: Literal[False] = False,
) -> Data: ...  # fmt: skip


@overload
def restore_ntk(
    y: Data, A: Any, sigma: float | None = None, *, channel_axis: int | None = None, guide: Any = None,
    shape: tuple[int, int] | None = None, method: Landweber | None = None, compute: Compute | None = None,
    rng: Any = 0, return_info: Literal[True],
) -> tuple[Data, RestoreInfo]: ...  # fmt: skip


def restore_ntk(
    y: Any,
    A: Any,
    sigma: float | None = None,
    *,
    channel_axis: int | None = None,
    guide: Any = None,
    shape: tuple[int, int] | None = None,
    method: Landweber | None = None,
    compute: Compute | None = None,
    rng: Any = 0,
    return_info: bool = False,
) -> Any:
    """Restore an image from data y = A x + noise by what an infinitely wide CNN learns from them.

    With the constant image m that explains the data best, gradient descent on |A (m + z) - y|^2/2 from z = 0 in the
    geometry of the kernel Theta of ``guide``, z_{t+1} = z_t + eta Theta A^T (y - A (m + z_t)), in closed form; and in
    each further pass again with Theta of the result.

    Parameters
    ----------
    y : array_like, real
        The data: shape (n,), or with a channel axis (n, C).  For the operators of :mod:`ntkfast` also as an image: of
        the blurred, the coarse, or the whole size; what it holds at pixels that :class:`Inpainting` calls missing is
        ignored, be it NaN.
    A : LinearOperator (or matrix), shape (n, H*W), real
        Acts on one channel, pixel ``row*W + col``, and has an adjoint: :class:`Inpainting`, :class:`Blur`,
        :class:`Downsampling`, or one of your own.
    sigma : float, optional
        Standard deviation of the data's noise, >= 0, in the units of y; None is 0.  Only for the choice of the steps,
        and for the first guess.
    channel_axis : int, optional
        Axis of the channels of y, and of the result; None for gray.  All channels share A and the kernel.
    guide : array_like, shape (H, W) or with a channel axis, optional
        Picture of which the kernel is made; its mean does not matter, it need not have as many channels as y.  By
        default a smooth first guess from the data (Notes).
    shape : (int, int), optional
        (H, W).  Needed where neither A nor a guide says it.
    method : Landweber, optional
        Network, steps, passes, and how the descent is computed; default ``Landweber()``.
    compute : Compute, optional
        Device, precision, threads and progress, which is told a guess of the fraction done; default ``Compute()``.
        A acts on the CPU, in its own precision.
    rng : int, None or numpy Generator
        The random vectors of the test of A and its adjoint, at the start: the same at each call for an int, fresh ones
        for None.
    return_info : bool
        Also return a :class:`RestoreInfo`.

    Returns
    -------
    ndarray
        The image, (H, W) or with the channel axis, float32 if y is, else float64; with a leading axis if
        ``method.steps`` is a sequence; and the RestoreInfo if asked for.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or the learning rate >= 2/lambda_max, where the iteration
        diverges, or A gives NaN, or has another adjoint than its rmatvec: with both sides of <A u, v> = <u, A^T v>.
    MemoryError
        Before any work, if the kernel, the vectors of 30 products, or of max_products if that is less, and the images
        of all steps do not fit: with the bytes needed and the option that would fit.
    RuntimeError
        As for :class:`NTK`.

    Notes
    -----
    Stopping rule: Morozov's discrepancy principle with what z can fit of the noise taken off, the first t with
    |A z_t - y|^2 <= tau C tr((I - eta A Theta A^T)^t) sigma^2 (equivalent degrees of freedom; Thompson, Brown, Kay,
    Titterington, IEEE PAMI 13, 1991); the trace is estimated from one random vector in the same Lanczos run.  Without
    noise, the first t with |A z_t - y| <= 0.005 |y - A m|, which is about the rounding of 8 bits.  If no t up to 10^6
    fits, the one that comes nearest (the plain iteration then stops at 10^6).

    First guess: the smoothest image that explains the data, the minimum of |A x - y|^2 + mu |Laplacian x|^2.  mu is by
    the plain discrepancy principle the largest of a few, the smallest of them without noise; for :class:`Inpainting`
    without noise the known pixels are kept, mu -> 0 (biharmonic inpainting).

    For fixed guide and steps the result is linear in y, the mean included.

    Rounding depends on the number of threads, and many steps amplify it: in float32 results without noise, of 5e5 to
    1e6 steps, differed between one thread and two by up to 2e-3 of the range of the image (:class:`Downsampling` by 2,
    96 x 96; 1e-4 to 4e-4 of the norm), in float64 by 1e-11.

    Without noise the result may be a little worse than the first guess: a small photograph (96 x 96 and smaller) at
    half the resolution lost 0.1 to 0.2 dB on it.

    Sources: the deep image prior of Ulyanov, Vedaldi, Lempitsky, CVPR 2018, whose limit of infinite width this is; the
    test of A and its adjoint: Claerbout, "Earth Soundings Analysis", 1992.

    Examples
    --------
    >>> clean = np.sin(np.add.outer(np.arange(16) / 3, np.arange(16) / 4))
    >>> known = np.random.default_rng(0).random((16, 16)) < 0.5
    >>> damaged = np.where(known, clean, np.nan)
    >>> restored, info = nf.restore_ntk(damaged, nf.Inpainting(known), return_info=True)
    >>> bool(np.abs(restored - clean).mean() < 0.05)
    True
    >>> path = nf.restore_ntk(damaged, nf.Inpainting(known), method=nf.Landweber(steps=[10, 100]))
    >>> path.shape
    (2, 16, 16)
    """
    started = time.perf_counter()
    plan = _check.instance("method", Landweber() if method is None else method, (Landweber,))
    compute = _check.instance("compute", Compute() if compute is None else compute, (Compute,))
    operator = tested_operator(A, _check.generator("rng", rng))
    data, layout = as_data("y", y, operator, channel_axis)
    given = None if guide is None else as_image("guide", guide, channel_axis, compute.precision, gray_too=True)
    level = 0.0 if sigma is None else _check.not_negative("sigma", sigma)
    problem = _Data(operator, data, _image_shape(operator, shape, given), level)
    net = default_network(operator) if plan.network is None else plan.network
    done = ProductsDone(compute.progress, plan.passes)
    theta = problem_of(compute, net, _kernel_shape(net, problem, given))
    backend = choose(compute.device, theta)
    _require_memory(backend, theta, problem, plan)

    first = first_guess(operator, data, problem.shape, level) if given is None else given
    _require_finite(first, "products")
    options = {"device": backend, "dtype": theta.dtype, "storage": plan.storage, "threads": theta.threads}
    runs = _descents(problem, first, partial(_kernel, net, progress=done.within, **options), plan, done)
    path = runs[-1].path
    out = layout.restored(path.reshape(len(path), *problem.shape, -1))
    out = out if plan.is_path else out[0]
    done.finish()
    if not return_info:
        return out
    misfits = tuple(float(np.sqrt(np.mean((operator.matmat(z) - data) ** 2))) for z in path)
    return out, RestoreInfo(
        method=replace(plan, network=net),
        guide=first,
        steps=tuple(max(run.steps) for run in runs),
        learning_rate=tuple(run.learning_rate for run in runs),
        lambda_max=tuple(run.lambda_max for run in runs),
        products=done.products,
        error=max(run.error for run in runs),
        misfit=misfits if plan.is_path else misfits[0],
        passes=plan.passes,
        seconds=time.perf_counter() - started,
    )


@dataclass(frozen=True)
class _Data:
    """y = A x + noise of a level, for images x of a shape."""

    A: LinearOperator
    y: np.ndarray  # (n, C)
    shape: tuple[int, int]
    level: float

    def without_constant(self) -> tuple[np.ndarray, np.ndarray]:
        """The constant image that explains the data best, m = <A 1, y>/|A 1|^2, as (C,); and y - A m."""
        ones = self.A.matvec(np.ones(self.A.shape[1]))[:, None]
        energy = float((ones * ones).sum())
        mean = (ones * self.y).sum(axis=0) / energy if energy > 0 else np.zeros(self.y.shape[1])
        return mean, self.y - ones * mean


def default_network(A: LinearOperator) -> Network:
    """The network of :func:`restore_ntk`: ``vanilla_cnn(1, 11)`` for :class:`Inpainting`, else ``autoencoder(2)``.

    By ``python examples/restore_photo.py --size 96 --network NETWORK``, against scikit-image's biharmonic inpainting
    (27.79 dB) of 75% missing pixels, Richardson-Lucy (26.32) of blur with noise, and bicubic interpolation (30.41) of
    half the resolution: vanilla_cnn(1, 11) 27.85, 26.42 and 30.25, autoencoder(2) 27.78, 26.78 and 30.71,
    vanilla_cnn(1, 5) 27.81, 26.39 and 30.76, vanilla_cnn(3, 5) 27.75, 26.49 and 29.59, autoencoder(1) 27.64, 26.56 and
    30.23.  Under text and scratches, where most pixels are known, autoencoder(2) loses 0.4 dB against the biharmonic
    image at the size of 128: 10^6 steps do not fit the known pixels yet.
    """
    return vanilla_cnn(1, 11) if getattr(A, "known", None) is not None else autoencoder(2)


def _kernel_shape(network: Network, data: _Data, guide: np.ndarray | None) -> tuple[int, int, int, int]:
    """Return the shape (1, H, W, C) of the first pass's image, which is ``guide`` (H, W, C) or a first guess."""
    height, width = (next_multiple(side, network.multiple) for side in data.shape)
    return 1, height, width, data.y.shape[1] if guide is None else guide.shape[2]


def _require_memory(backend: Backend, theta: Problem, data: _Data, plan: Landweber) -> None:
    """Refuse data, images of the result and the kernel that will not fit together."""
    (n, channels), times = data.y.shape, 1 if plan.times is None else len(plan.times)
    _, height, width, _ = theta.shape
    budget = Budget().state(backend.host_bytes(backend.peaks(theta, channels + 1)["stream"]))
    d, item = height * width, theta.dtype.itemsize
    usual = min(plan.max_products, USUAL_PRODUCTS, n + 1)

    def needed(images: int, columns: int) -> int:
        basis = lanczos_bytes(n, columns + 1, usual, images * columns, item)
        products = 8 * PRODUCT_VECTORS * d * (columns + 1)
        return max(basis + products, 8 * RESULT_VECTORS * d * images * columns)

    hint = "use a smaller image"
    if times > 1 and budget.fits(needed(1, channels)):
        hint = "ask for fewer steps at once"
    elif channels > 1 and budget.fits(needed(times, 1)):
        hint = "restore one channel at a time"
    what = f"restoring {times} image{'s' * (times != 1)} of {height} x {width} x {channels} numbers"
    budget.require(what, hint, needed(times, channels))


class _Misfit(LinearOperator):  # type: ignore[misc]
    """A Theta A^T over the scale of Theta, shape (n, n), of the kernel's dtype.

    The kernel's image may be larger than the operator's, below and to the right: Theta is then its part.
    """

    def __init__(self, A: LinearOperator, K: NTK, shape: tuple[int, int], done: ProductsDone) -> None:
        self.A, self._image_shape, self._done = A, shape, done
        self._K, self.scale = K.scaled, K.scale
        self.lambda_max: float | None = None
        super().__init__(K.dtype, (A.shape[0], A.shape[0]))

    def working_bytes(self, columns: int) -> int:
        """Bytes that a product takes in the host's memory beside its input and result."""
        return self._K.host_bytes(columns) + 8 * PRODUCT_VECTORS * int(self._K.shape[0]) * columns

    def forward(self, z: np.ndarray) -> np.ndarray:
        """A z."""
        result = np.asarray(self.A.matmat(z))
        _require_finite(result, "matmat")
        return result

    def synthesize(self, c: np.ndarray) -> np.ndarray:
        """Theta A^T c: (n, k) to (H*W, k), float64."""
        (height, width), columns = self._image_shape, c.shape[1]
        image = np.zeros((*self._K.image_shape, columns))
        image[:height, :width] = self.A.rmatmat(c.astype(np.float64)).reshape(height, width, columns)
        product = self._K.apply(image)
        self._done.count()
        return np.asarray(product[:height, :width].reshape(-1, columns), dtype=np.float64)

    def _matmat(self, V: np.ndarray) -> np.ndarray:
        return self.forward(self.synthesize(V)).astype(self.dtype)

    def _matvec(self, v: np.ndarray) -> np.ndarray:
        return self._matmat(v.reshape(-1, 1))


@dataclass(frozen=True)
class _Goal:
    """The discrepancy principle asks this of |A z - y|^2.

    Attributes
    ----------
    square : float
        Before what the freedom of z takes from it.
    noisy : bool
        Whether it takes anything.
    """

    square: float
    noisy: bool

    @classmethod
    def of(cls, data: _Data, target: np.ndarray, tau: float) -> _Goal:
        """For the data less their constant image, ``target``."""
        square = tau * target.size * data.level**2 if data.level > 0 else NOISELESS_MISFIT**2 * float((target**2).sum())
        # The rest of constant data is no picture.
        return cls(max(square, ROUNDING**2 * float((data.y**2).sum())), data.level > 0)


@dataclass(frozen=True)
class _Descent:
    path: np.ndarray  # (times, d, C)
    steps: list[int]
    learning_rate: float
    lambda_max: float
    error: float


def _descents(
    data: _Data, first: np.ndarray, kernel: Callable[[np.ndarray], NTK], plan: Landweber, done: ProductsDone
) -> list[_Descent]:
    """All passes, Theta of each from the last image of the one before; their paths with the constant image."""
    mean, target = data.without_constant()
    goal, picture, runs = _Goal.of(data, target, plan.tau), first, []
    for _ in range(plan.passes):
        run = _descend(_Misfit(data.A, kernel(picture), data.shape, done), target, plan, goal)
        runs.append(replace(run, path=run.path + mean))
        picture = runs[-1].path[-1].reshape(*data.shape, -1)
        done.next_pass()
    return runs


def _descend(misfit: _Misfit, y: np.ndarray, plan: Landweber, goal: _Goal) -> _Descent:
    """z_t for each time asked for, or for the one of the discrepancy principle."""
    if plan.solver == "iteration":
        return _iterate(misfit, y, plan, goal)
    chosen: list[int] = []

    def filters(lambda_max: float, solution: Solution | None) -> list[Filter]:
        rate = stable_learning_rate(plan.learning_rate, lambda_max, misfit.scale)
        if plan.times is not None:
            chosen[:] = plan.times
        else:
            chosen[:] = [0 if solution is None else _discrepancy_steps(solution, y.shape[1], rate, goal)]
        return [landweber_filter(t, rate) for t in chosen]

    c, info = run_lanczos(misfit, y, filters, _settings(plan), with_lambda_max=True)
    # All times in one product.
    columns = misfit.synthesize(c.transpose(1, 0, 2).reshape(len(y), -1))
    path = columns.reshape(-1, *c.shape[::2]).transpose(1, 0, 2)
    rate = stable_learning_rate(plan.learning_rate, info.lambda_max, misfit.scale)
    return _Descent(path, list(chosen), rate / misfit.scale, info.lambda_max * misfit.scale, info.error)


def _settings(plan: Landweber) -> Settings:
    return Settings(plan.tolerance, plan.max_products)


def _discrepancy_steps(solution: Solution, channels: int, eta: float, goal: _Goal) -> int:
    """The first t that fits, up to ``MAX_STEPS``, of a grid whose members are a quarter apart, then by bisection; of
    the grid the one that comes nearest if none fits.

    With q = (I - eta T)^t: |A z_t - y|^2 = |q E_1 R|^2, and of the random direction v, tr q / n ~ <v, q v>/|v|^2
    (Hutchinson's estimate, by Lanczos quadrature).
    """
    squares = (solution.first**2).sum(axis=0)
    data, random = squares[:, :channels].sum(axis=1), squares[:, channels:].sum(axis=1)
    decay = 1.0 - eta * solution.values[0]

    def ratio(t: int) -> float:
        """At most 1 where t fits."""
        power = decay**t
        free = float((power * random).sum() / random.sum()) if goal.noisy else 1.0
        misfit = float((power**2 * data).sum())
        return misfit / (goal.square * free) if goal.square * free > 0 else float(misfit > 0) * math.inf

    grid = [0, *np.unique(np.geomspace(1, MAX_STEPS, 64).astype(int)).tolist()]
    ratios = [ratio(t) for t in grid]
    first = next((n for n, value in enumerate(ratios) if value <= 1), None)
    if first is None:
        return int(grid[int(np.argmin(ratios))])
    low, high = grid[first - 1] if first else -1, grid[first]
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if ratio(middle) <= 1 else (middle, high)
    return int(high)


def _iterate(misfit: _Misfit, y: np.ndarray, plan: Landweber, goal: _Goal) -> _Descent:
    """z_{t+1} = z_t + eta Theta A^T (y - A z_t), step by step."""
    lambda_max = largest_eigenvalue(misfit, NUMPY, _settings(plan))
    eta = stable_learning_rate(plan.learning_rate, lambda_max, misfit.scale)
    channels = y.shape[1]
    y = np.concatenate([y, random_direction(len(y))], axis=1)  # beside it, for the freedom of z
    z = np.zeros((misfit.A.shape[1], channels + 1))
    residual, step, path = y, 0, {0: z}

    def fits() -> bool:
        free = float((residual * y)[:, channels:].sum() / (y * y)[:, channels:].sum()) if goal.noisy else 1.0
        return float((residual[:, :channels] ** 2).sum()) <= goal.square * free

    last = MAX_STEPS if plan.times is None else max(plan.times)
    while step < last and not (plan.times is None and fits()):
        z = z + eta * misfit.synthesize(residual)
        residual = y - misfit.forward(z)
        step += 1
        if plan.times is None:
            path = {step: z}
        elif step in plan.times:
            path[step] = z
    steps = [step] if plan.times is None else plan.times
    return _Descent(
        np.stack([path[t][:, :channels] for t in steps]),
        steps,
        eta / misfit.scale,
        lambda_max * misfit.scale,
        float("nan"),
    )


def _kernel(network: Network, picture: np.ndarray, **options: Any) -> NTK:
    """Theta of a picture (H, W, C) less its mean, mirrored below and to the right where the network needs it."""
    missing = [-n % network.multiple for n in picture.shape[:2]]
    padding = ((0, missing[0]), (0, missing[1]), (0, 0))
    return NTK(network, np.pad(without_mean(picture), padding, mode="symmetric"), channel_axis=-1, **options)


def tested_operator(A: Any, rng: np.random.Generator) -> LinearOperator:
    """A as a real LinearOperator whose adjoint has passed the dot-product test."""
    try:
        operator = aslinearoperator(A)
    except TypeError as error:
        raise TypeError(f"A must be a LinearOperator or a matrix, got {type(A).__name__}") from error
    if operator.dtype is not None and np.dtype(operator.dtype).kind not in "fiub":
        raise TypeError(f"A must be real, got dtype {operator.dtype}")
    if 0 in operator.shape:
        raise ValueError(f"A must have rows and columns, got shape {operator.shape}")
    _require_adjoint(operator, rng)
    return operator


def _require_adjoint(A: LinearOperator, rng: np.random.Generator) -> None:
    """The dot-product test, <A u, v> = <u, A^T v>.

    With v = A u both sides are |A u|^2, where nothing cancels, however large A is; another v sees what that one, in the
    range of A, does not.  Vectors with a mean see what is added to every pixel.
    """
    n, d = A.shape
    u, other = 1.0 + rng.standard_normal(d), 1.0 + rng.standard_normal(n)
    image = _product(A, "matvec", u)
    for v in (image, other):
        back = _product(A, "rmatvec", v)
        left, right = float(image @ v), float(u @ back)
        size = max(np.linalg.norm(image) * np.linalg.norm(v), np.linalg.norm(u) * np.linalg.norm(back))
        if abs(left - right) > ADJOINT_TOLERANCE * size:
            raise ValueError(
                "A must have its adjoint as rmatvec, <A u, v> = <u, A^T v>: for random u and v the left side is "
                f"{left:.6g} and the right side {right:.6g}"
            )


def _product(A: LinearOperator, name: str, v: np.ndarray) -> np.ndarray:
    """A v, or A^T v, or an error that names A."""
    count = A.shape[0 if name == "matvec" else 1]
    try:
        result = np.asarray(getattr(A, name)(v))
    except NotImplementedError as error:
        raise TypeError("A must have an adjoint: give LinearOperator an rmatvec") from error
    except ValueError as error:
        raise ValueError(f"A must give {count} numbers for {len(v)}, but its {name} failed: {error}") from error
    _require_finite(result, name)
    return result


def _require_finite(result: np.ndarray, name: str) -> None:
    if not np.isfinite(result).all():
        count = int(result.size - np.isfinite(result).sum())
        raise ValueError(f"A must give finite numbers, got {count} NaN or infinite values from its {name}")


def _image_shape(A: LinearOperator, shape: Any, guide: np.ndarray | None) -> tuple[int, int]:
    """(H, W), from A, the argument or the guide, which must agree."""
    said: dict[str, tuple[int, int]] = {}
    if isinstance(A, ImageOperator):
        said["A"] = A.image_shape
    if shape is not None:
        said["shape"] = as_size(shape)
    if guide is not None:
        said["guide"] = (guide.shape[0], guide.shape[1])
    if not said:
        raise ValueError("shape must be given, (H, W): neither A nor a guide says it")
    for name, wanted in said.items():
        if wanted[0] * wanted[1] != A.shape[1] or wanted != next(iter(said.values())):
            raise ValueError(
                f"{name} must have the size of the images that A acts on, {getattr(A, 'image_shape', A.shape[1])} "
                f"(A has {A.shape[1]} columns), got {wanted}"
            )
    return next(iter(said.values()))
