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
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator, cg, splu

from .. import _check
from ..engine.arrays import NUMPY
from ..engine.backend import choose
from ..engine.cpu import threads_of
from ..engine.memory import Budget
from ..engine.program import Problem, Progress
from ..images import as_data, as_image, as_size, without_mean
from ..kernel import NTK
from ..network import Network, as_network, autoencoder, vanilla_cnn
from ..spectral.filters import (
    MAX_PRODUCTS,
    METHODS,
    USUAL_PRODUCTS,
    Settings,
    largest_eigenvalue,
    random_direction,
    run_lanczos,
    stable_learning_rate,
)
from ..spectral.lanczos import Filter, Solution, lanczos_bytes, landweber_filter
from .operators import ImageOperator

__all__ = ["RestoreInfo", "restore"]

# Bound on the error of A z, relative to A z, at which Lanczos stops: below one gray level of 256.
TOLERANCE = 1e-3

# Without noise, steps are taken until |A z - y| is this share of |y - A mean|: the rounding of 8 bits is about that.
NOISELESS_MISFIT = 5e-3
MAX_STEPS = 10**6
ROUNDING = 1e-12

# The first guess: weights of the smoothness term, relative to the largest eigenvalue of A^T A, from smooth to rough.
GUESS_WEIGHTS = (1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
GUESS_ITERATIONS, GUESS_TOLERANCE = 100, 1e-4

# Vectors over the pixels, in double precision, that become of one column in a product with A Theta A^T; and of one
# channel of a result, which comes from such a product.
PRODUCT_VECTORS, RESULT_VECTORS = 4, 5

# Products of a pass after which its progress bar stands at 1 - 1/e; how many there will be is not known beforehand.
TYPICAL_PRODUCTS = 40


@dataclass(frozen=True)
class RestoreInfo:
    """What :func:`restore` did.

    Attributes
    ----------
    network : Network
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
    refine : int
        Passes after the first.
    seconds : float
    """

    network: Network
    guide: np.ndarray = field(repr=False, compare=False)
    steps: tuple[int, ...]
    learning_rate: tuple[float, ...]
    lambda_max: tuple[float, ...]
    products: int
    error: float
    misfit: float | tuple[float, ...]
    refine: int
    seconds: float


def restore(
    y: Any,
    A: Any,
    sigma: float | None = None,
    *,
    channel_axis: int | None = None,
    guide: Any = None,
    shape: tuple[int, int] | None = None,
    network: Network | None = None,
    steps: int | Sequence[int] | None = None,
    learning_rate: float | None = None,
    tau: float = 1.0,
    refine: int = 0,
    method: str = "lanczos",
    tolerance: float = TOLERANCE,
    max_products: int = MAX_PRODUCTS,
    device: str = "auto",
    dtype: Any = "float32",
    storage: str = "auto",
    threads: int | None = None,
    progress: Progress | None = None,
    full_output: bool = False,
) -> Any:
    """Restore an image from data y = A x + noise by what an infinitely wide CNN learns from them.

    With the constant image m that explains the data best, gradient descent on |A (m + z) - y|^2/2 from z = 0 in the
    geometry of the kernel Theta of ``guide`` (module's formulas), and ``refine`` times again with Theta of the result.

    Parameters
    ----------
    y : array_like, real
        The data: shape (n,), or with a channel axis (n, C).  For the operators of :mod:`ntkfast` also as an image: of
        the blurred, the coarse, or the whole size; what it holds at pixels that :func:`inpainting` calls missing is
        ignored, be it NaN.
    A : LinearOperator (or matrix), shape (n, H*W), real
        Acts on one channel, pixel ``row*W + col``, and has an adjoint: :func:`inpainting`, :func:`blurring`,
        :func:`downsampling`, or one of your own.
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
    network : Network, optional
        Default ``vanilla_cnn(1, 11)`` for :func:`inpainting`, else ``autoencoder(2)``.
    steps : int or sequence of int, optional
        Steps of gradient descent of every pass; a sequence gives the whole path of the last pass, and the passes before
        take its longest.  By default the discrepancy principle (Notes).
    learning_rate : float, optional
        eta > 0; default 1/lambda_max(A Theta A^T).
    tau : float
        Factor of the discrepancy principle, > 0.
    refine : int
        Passes after the first, each with the kernel of the result so far.
    method : {"lanczos", "iteration"}
        "iteration" takes every step as written in the module, one product each: slow, and the oracle of the other.
    tolerance : float
        Bound on the relative error of A z at which Lanczos stops.
    max_products : int
        Bound on the products of Lanczos in each pass; a RuntimeWarning says if the tolerance was not reached.
    device, dtype, storage, threads
        As for :class:`NTK`.  A acts on the CPU, in its own precision.
    progress : callable, optional
        Called with a guess of the fraction done, 0 to 1.  An exception it raises stops the work and is passed on.
    full_output : bool
        Also return a :class:`RestoreInfo`.

    Returns
    -------
    ndarray
        The image, (H, W) or with the channel axis, float32 if y is, else float64; with a leading axis if ``steps`` is
        a sequence; and the RestoreInfo if asked for.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range, or learning_rate >= 2/lambda_max, where the iteration
        diverges; the message names it.
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
    the plain discrepancy principle the largest of a few, the smallest of them without noise; for :func:`inpainting`
    without noise the known pixels are kept, mu -> 0 (biharmonic inpainting).

    For fixed guide and steps the result is linear in y, the mean included.

    Rounding depends on the number of threads, and many steps amplify it: in float32 results without noise, of 5e5 to
    1e6 steps, differed between one thread and two by up to 2e-3 of the range of the image (:func:`downsampling` by 2,
    96 x 96; 1e-4 to 4e-4 of the norm), in float64 by 1e-11.

    Without noise the result may be a little worse than the first guess: a small photograph (96 x 96 and smaller) at
    half the resolution lost 0.1 to 0.2 dB on it.

    Examples
    --------
    >>> A = ntkfast.inpainting(known)                                              # doctest: +SKIP
    >>> image = ntkfast.restore(damaged, A, channel_axis=-1)                       # doctest: +SKIP
    """
    started = time.perf_counter()
    operator = _operator(A)
    real = _check.float_dtype(dtype)
    data, layout = as_data("y", y, operator, channel_axis)
    picture = None if guide is None else as_image("guide", guide, channel_axis, real)
    image_shape = _image_shape(operator, shape, picture)
    level = 0.0 if sigma is None else _check.not_negative("sigma", sigma)
    net = default_network(operator) if network is None else as_network(network)
    times, single = (None, True) if steps is None else _check.one_or_more("steps", steps, _check.steps)
    passes = 1 + _check.at_least("refine", refine, 0)
    _check.choice("method", method, METHODS)
    products = _check.at_least("max_products", max_products, 1)
    report = _Report(progress, passes)
    pixels = (*(-(-n // net.multiple) * net.multiple for n in image_shape), data.shape[1])
    shape_of_guide = (1, *pixels[:2], pixels[2] if picture is None else picture.shape[2])
    problem = Problem(net, shape_of_guide, real, threads_of(threads))
    backend = choose(device, problem)
    engine = backend.host_bytes(backend.peaks(problem, pixels[2] + 1)["stream"])
    _require_memory(engine, data.shape, pixels, 1 if times is None else len(times), products, real)

    # The constant image that explains the data best: m = <A 1, y>/|A 1|^2.
    ones = operator.matvec(np.ones(operator.shape[1]))[:, None]
    energy = float((ones * ones).sum())
    mean = (ones * data).sum(axis=0) / energy if energy > 0 else np.zeros(data.shape[1])
    target = data - ones * mean
    if picture is None:
        picture = first_guess(operator, data, image_shape, level)
    noise = _check.positive("tau", tau) * target.size * level**2
    goal = noise if level > 0 else NOISELESS_MISFIT**2 * float((target**2).sum())
    plan = _Plan(
        times=times,
        goal=max(goal, ROUNDING**2 * float((data**2).sum())),  # what is left of constant data is no picture
        noisy=level > 0,
        learning_rate=None if learning_rate is None else _check.positive("learning_rate", learning_rate),
        settings=Settings(_check.positive("tolerance", tolerance), products),
        method=method,
    )

    first, done = picture, []
    for _ in range(passes):
        K = _kernel(net, picture, device=device, dtype=real, storage=storage, threads=threads, progress=report.within)
        done.append(_descend(_Misfit(operator, K, image_shape, report), target, plan))
        picture = (done[-1].path[-1] + mean).reshape(*image_shape, -1)
        report.next_pass()

    path = done[-1].path + mean
    out = layout.restored(path.reshape(len(path), *image_shape, -1))
    out = out[0] if single else out
    report.finish()
    if not full_output:
        return out
    misfits = tuple(float(np.sqrt(np.mean((operator.matmat(z) - data) ** 2))) for z in path)
    return out, RestoreInfo(
        network=net,
        guide=first,
        steps=tuple(max(run.steps) for run in done),
        learning_rate=tuple(run.learning_rate for run in done),
        lambda_max=tuple(run.lambda_max for run in done),
        products=report.products,
        error=max(run.error for run in done),
        misfit=misfits[0] if single else misfits,
        refine=passes - 1,
        seconds=time.perf_counter() - started,
    )


def default_network(A: LinearOperator) -> Network:
    """The network of :func:`restore`: ``vanilla_cnn(1, 11)`` for :func:`inpainting`, else ``autoencoder(2)``.

    By ``python examples/restore_photo.py --size 96 --network NETWORK``, against scikit-image's biharmonic inpainting
    (27.79 dB) of 75% missing pixels, Richardson-Lucy (26.32) of blur with noise, and bicubic interpolation (30.41) of
    half the resolution: vanilla_cnn(1, 11) 27.85, 26.42 and 30.25, autoencoder(2) 27.78, 26.78 and 30.71,
    vanilla_cnn(1, 5) 27.81, 26.39 and 30.76, vanilla_cnn(3, 5) 27.75, 26.49 and 29.59, autoencoder(1) 27.64, 26.56 and
    30.23.  Under text and scratches, where most pixels are known, autoencoder(2) loses 0.4 dB against the biharmonic
    image at the size of 128: 10^6 steps do not fit the known pixels yet.
    """
    return vanilla_cnn(1, 11) if getattr(A, "known", None) is not None else autoencoder(2)


def first_guess(A: LinearOperator, y: np.ndarray, shape: tuple[int, int], sigma: float) -> np.ndarray:
    """The smoothest image that explains the data: argmin |A x - y|^2 + mu |L x|^2, L the Laplacian of the pixel grid.

    Parameters
    ----------
    A : LinearOperator, shape (n, H*W)
    y : ndarray, shape (n, C)
    shape : (int, int)
        (H, W).
    sigma : float
        Noise level of y; mu is the largest of ``GUESS_WEIGHTS`` (relative to |A|^2) that fits so well.

    Returns
    -------
    ndarray, shape (H, W, C)
    """
    lines = (_second_differences(n) for n in shape)
    laplacian = sparse.kronsum(*reversed(list(lines)), format="csr")
    smoothness = (laplacian @ laplacian).tocsr()
    known = getattr(A, "known", None)
    if known is not None and sigma == 0:
        return _biharmonic(smoothness, known, y)
    d, channels = A.shape[1], y.shape[1]
    backprojected = A.rmatmat(y)
    scale = _squared_norm(A)
    x = np.zeros(d * channels)
    if scale == 0 or not y.any():
        return x.reshape(*shape, channels)
    for weight in GUESS_WEIGHTS if sigma > 0 else GUESS_WEIGHTS[-1:]:
        mu = weight * scale

        def normal(v: np.ndarray, mu: float = mu) -> np.ndarray:
            columns = v.reshape(d, channels)
            return np.asarray(A.rmatmat(A.matmat(columns)) + mu * (smoothness @ columns)).ravel()

        system = LinearOperator((x.size, x.size), matvec=normal, dtype=np.float64)
        x, _ = cg(system, backprojected.ravel(), x0=x, maxiter=GUESS_ITERATIONS, rtol=GUESS_TOLERANCE)
        if ((A.matmat(x.reshape(d, channels)) - y) ** 2).sum() <= y.size * sigma**2:
            break
    return x.reshape(*shape, channels)


def _biharmonic(smoothness: sparse.csr_matrix, known: np.ndarray, y: np.ndarray) -> np.ndarray:
    """mu -> 0: the known pixels as they are, the others u from  B_uu x_u = -B_uk y,  B = L^T L."""
    flat = known.ravel()
    x = np.zeros((flat.size, y.shape[1]))
    x[flat] = y
    if not flat.all():
        rows = smoothness[~flat]
        # Positive definite: only constant images have no second differences, and a pixel at least is known.
        x[~flat] = splu(rows[:, ~flat].tocsc()).solve(-(rows[:, flat] @ y))
    return x.reshape(*known.shape, -1)


def _second_differences(length: int) -> sparse.csr_matrix:
    """Of a line of pixels that is mirrored at its ends: (length, length), negative semi-definite."""
    gradient = sparse.eye(length - 1, length, 1) - sparse.eye(length - 1, length)
    return sparse.csr_matrix(-(gradient.T @ gradient))


def _squared_norm(A: LinearOperator) -> float:
    """|A|^2, the largest eigenvalue of A^T A, by the power method to some percent."""
    v = 1.0 + np.random.default_rng(0).random(A.shape[1])
    size = 0.0
    for _ in range(10):
        v = A.rmatvec(A.matvec(v / np.linalg.norm(v)))
        size = float(np.linalg.norm(v))
        if size == 0:
            break
    return size


def _require_memory(
    engine: int,
    data: tuple[int, ...],
    pixels: tuple[int, ...],
    times: int,
    max_products: int,
    dtype: np.dtype[Any],
) -> None:
    """Refuse what will not fit beside the engine: data (n, C), pixels (H, W, C), ``times`` images of the result."""
    (n, channels), d = data, pixels[0] * pixels[1]

    budget = Budget().state(engine)

    def needed(images: int, columns: int) -> int:
        basis = lanczos_bytes(
            n, columns + 1, min(max_products, USUAL_PRODUCTS, n + 1), images * columns, dtype.itemsize
        )
        products = 8 * PRODUCT_VECTORS * d * (columns + 1)
        return max(basis + products, 8 * RESULT_VECTORS * d * images * columns)

    hint = "use a smaller image"
    if times > 1 and budget.fits(needed(1, channels)):
        hint = "ask for fewer steps at once"
    elif channels > 1 and budget.fits(needed(times, 1)):
        hint = "restore one channel at a time"
    what = f"restoring {times} image{'s' * (times != 1)} of {' x '.join(map(str, pixels))} numbers"
    budget.require(what, hint, needed(times, channels))


class _Report:
    """A guess of the fraction done, and the products counted."""

    def __init__(self, progress: Progress | None, passes: int) -> None:
        self._progress, self._passes = _check.callback("progress", progress), passes
        self._pass, self._in_pass, self._shown = 0, 0, 0.0
        self.products = 0

    def within(self, fraction: float) -> None:
        """The fraction of the running product."""
        done = 1.0 - math.exp(-(self._in_pass + fraction) / TYPICAL_PRODUCTS)
        self._show((self._pass + done) / self._passes)

    def count(self) -> None:
        self.products += 1
        self._in_pass += 1
        self.within(0.0)

    def next_pass(self) -> None:
        self._pass, self._in_pass = self._pass + 1, 0

    def finish(self) -> None:
        self._show(1.0)

    def _show(self, done: float) -> None:
        if self._progress is not None and done > self._shown:
            self._shown = done
            self._progress(done)


class _Misfit(LinearOperator):  # type: ignore[misc]
    """A Theta A^T, shape (n, n), of the kernel's dtype.

    The kernel's image may be larger than the operator's, below and to the right: Theta is then its part.
    """

    def __init__(self, A: LinearOperator, K: NTK, shape: tuple[int, int], report: _Report) -> None:
        self.A, self._K, self._image_shape, self._report = A, K, shape, report
        self.lambda_max: float | None = None
        super().__init__(K.dtype, (A.shape[0], A.shape[0]))

    def working_bytes(self, columns: int) -> int:
        """Bytes that a product takes in the host's memory beside its input and result."""
        return self._K.host_bytes(columns) + 8 * PRODUCT_VECTORS * int(self._K.shape[0]) * columns

    def forward(self, z: np.ndarray) -> np.ndarray:
        """A z."""
        return np.asarray(self.A.matmat(z))

    def synthesize(self, c: np.ndarray) -> np.ndarray:
        """Theta A^T c: (n, k) to (H*W, k), float64."""
        (height, width), columns = self._image_shape, c.shape[1]
        image = np.zeros((*self._K.image_shape, columns))
        image[:height, :width] = self.A.rmatmat(c.astype(np.float64)).reshape(height, width, columns)
        product = self._K.apply(image)
        self._report.count()
        return np.asarray(product[:height, :width].reshape(-1, columns), dtype=np.float64)

    def _matmat(self, V: np.ndarray) -> np.ndarray:
        return self.forward(self.synthesize(V)).astype(self.dtype)

    def _matvec(self, v: np.ndarray) -> np.ndarray:
        return self._matmat(v.reshape(-1, 1))


@dataclass(frozen=True)
class _Plan:
    times: list[int] | None  # None for the discrepancy principle
    goal: float  # |A z - y|^2 at which that stops, before what the freedom of z takes from it
    noisy: bool
    learning_rate: float | None
    settings: Settings
    method: str


@dataclass(frozen=True)
class _Descent:
    path: np.ndarray  # (times, d, C)
    steps: list[int]
    learning_rate: float
    lambda_max: float
    error: float


def _descend(misfit: _Misfit, y: np.ndarray, plan: _Plan) -> _Descent:
    """z_t for each time asked for, or for the one of the discrepancy principle."""
    if plan.method == "iteration":
        return _iterate(misfit, y, plan)
    chosen: list[int] = []

    def filters(lambda_max: float, solution: Solution | None) -> list[Filter]:
        rate = stable_learning_rate(plan.learning_rate, lambda_max)
        if plan.times is not None:
            chosen[:] = plan.times
        else:
            chosen[:] = [0 if solution is None else _discrepancy_steps(solution, y.shape[1], rate, plan)]
        return [landweber_filter(t, rate) for t in chosen]

    c, info = run_lanczos(misfit, y, filters, plan.settings, with_lambda_max=True)
    # All times in one product.
    columns = misfit.synthesize(c.transpose(1, 0, 2).reshape(len(y), -1))
    path = columns.reshape(-1, *c.shape[::2]).transpose(1, 0, 2)
    return _Descent(
        path, list(chosen), stable_learning_rate(plan.learning_rate, info.lambda_max), info.lambda_max, info.error
    )


def _discrepancy_steps(solution: Solution, channels: int, eta: float, plan: _Plan) -> int:
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
        free = float((power * random).sum() / random.sum()) if plan.noisy else 1.0
        misfit = float((power**2 * data).sum())
        return misfit / (plan.goal * free) if plan.goal * free > 0 else float(misfit > 0) * math.inf

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


def _iterate(misfit: _Misfit, y: np.ndarray, plan: _Plan) -> _Descent:
    """z_{t+1} = z_t + eta Theta A^T (y - A z_t), step by step."""
    lambda_max = largest_eigenvalue(misfit, NUMPY, plan.settings)
    eta = stable_learning_rate(plan.learning_rate, lambda_max)
    channels = y.shape[1]
    y = np.concatenate([y, random_direction(len(y))], axis=1)  # beside it, for the freedom of z
    z = np.zeros((misfit.A.shape[1], channels + 1))
    residual, step, path = y, 0, {0: z}

    def fits() -> bool:
        free = float((residual * y)[:, channels:].sum() / (y * y)[:, channels:].sum()) if plan.noisy else 1.0
        return float((residual[:, :channels] ** 2).sum()) <= plan.goal * free

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
    return _Descent(np.stack([path[t][:, :channels] for t in steps]), steps, eta, lambda_max, float("nan"))


def _kernel(network: Network, picture: np.ndarray, **options: Any) -> NTK:
    """Theta of a picture (H, W, C) less its mean, mirrored below and to the right where the network needs it."""
    missing = [-n % network.multiple for n in picture.shape[:2]]
    padding = ((0, missing[0]), (0, missing[1]), (0, 0))
    return NTK(network, np.pad(without_mean(picture), padding, mode="symmetric"), **options)


def _operator(A: Any) -> LinearOperator:
    try:
        operator = aslinearoperator(A)
    except TypeError as error:
        raise TypeError(f"A must be a LinearOperator or a matrix, got {type(A).__name__}") from error
    if operator.dtype is not None and np.dtype(operator.dtype).kind not in "fiub":
        raise TypeError(f"A must be real, got dtype {operator.dtype}")
    if 0 in operator.shape:
        raise ValueError(f"A must have rows and columns, got shape {operator.shape}")
    try:
        operator.rmatvec(np.zeros(operator.shape[0]))
    except NotImplementedError as error:
        raise TypeError("A must have an adjoint: give LinearOperator an rmatvec") from error
    return operator


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
