"""The exact kernel over all pairs of pixels of one image, as a linear operator that never stores it unless told to."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike

from . import _check
from .engine.arrays import NUMPY, Arrays, namespace
from .engine.backend import Backend, choose
from .engine.cpu import threads_of
from .engine.memory import require_memory
from .engine.program import Problem, Progress
from .images import as_image, as_pixels, shape_of_image
from .inputs import NoiseInput
from .network import Network, as_network
from .pixel_operator import PixelOperator, with_signature

__all__ = ["NNGP", "NTK"]

STORAGES = ("auto", "stream", "coarse", "dense")

# storage="auto" keeps what takes at most this share of the memory that is free: a filter needs 15 to 30 products, and
# reading the kernel, or the coarse fields of a network, is faster than computing it again (bench/test_products.py,
# bench/resolutions.py).
AUTO_SHARE = 0.25

# Right-hand sides that go through one sweep; more than these and the accumulators leave the cache.
COLUMNS_PER_SWEEP = 64

# A pair of a column costs so much against one of a sweep, were all windows as large as the first: the middle of what
# ``python -m tools.tuning.columns`` prints by instruction set, from hardly more than a pair of a sweep (baseline) to
# some 4 of them (AVX-512, which columns do without).
COLUMN_PAIR = 2.2

# A product that takes no more does not ask for the free memory: reading that takes some 0.2 ms, as long as the product.
UNCHECKED_BYTES = 2**22

Own = TypeVar("Own", bound="Kernel")

# Numbers in double precision that a product in the Fourier domain takes for each number of V.
FOURIER_NUMBERS = 8


class Lock:
    """A lock that raises where its holder asks for it once more, in place of waiting for itself for ever."""

    def __init__(self) -> None:
        self._lock, self._holder = threading.Lock(), 0

    def __enter__(self) -> None:
        if self._holder == threading.get_ident():
            raise RuntimeError(
                "progress must not multiply with the operator that calls it while it computes what it keeps: "
                "make another operator, or storage='stream'"
            )
        self._lock.acquire()
        self._holder = threading.get_ident()

    def __exit__(self, *exception: object) -> None:
        self._holder = 0
        self._lock.release()


@with_signature
class Kernel(PixelOperator):
    """The exact kernels of a network on one image, :class:`NTK` and :class:`NNGP`, have this in common.

    ``kind`` of a subclass is the engine's name of its kernel.
    """

    kind: str

    def __init__(
        self,
        network: Network,
        image: Any,
        *,
        channel_axis: int | None = None,
        device: str | Backend = "auto",  # a Backend is from within the package, where one has been chosen already
        dtype: DTypeLike = "float32",
        storage: str = "auto",
        threads: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Prepare the products: check the arguments, choose the device, and compute the diagonals.

        The class describes the parameters and the errors.  Ctrl-C stops it within half a second.
        """
        as_network(network)
        if self.kind == "ntk" and not network.trainable:
            raise ValueError("network must have a trainable Conv for an NTK, got all of them frozen: NNGP takes it")
        self._progress = _check.callback("progress", progress)
        real = _check.float_dtype(dtype)
        noise = isinstance(image, NoiseInput)
        near = namespace(image).device
        # Sizes first: an image whose kernel will not fit need not be copied and looked at to be refused.
        shape = (*image.shape, 1) if noise else shape_of_image("image", image, channel_axis)
        network.check_size(*shape[:2])
        self.threads = threads_of(threads)
        self._problem = Problem(network, (1, *shape), real, self.threads, self.kind, noise)
        self.backend = choose(device, self._problem, near)

        self.network = network
        self.device = self.backend.name
        self.image_shape: tuple[int, int] = shape[:2]
        self.channels: int = shape[2]
        self._lambda_max: float | None = None
        self._lock = Lock()
        self._product_parts: dict[int, dict[str, int]] = {}  # by columns: estimates of small products take as long
        d = shape[0] * shape[1]
        super().__init__(real, (d, d))

        needed = self.memory_estimate()
        self.backend.require_fields(self._problem)
        self.backend.require("the engine's fields and one product", needed["stream"], self._smaller())
        self.storage = self._choose_storage(_check.choice("storage", storage, STORAGES), needed)
        # The image is kept for pickling.
        self._image = image if noise else as_image("image", image, channel_axis, real)
        pixels = np.zeros((1, *shape)) if noise else self._image[None]
        self._engine = self.backend.make(self._problem, pixels)
        self._columns_engine = self.backend.columns_engine(self._problem, pixels)
        self.scale = 2.0**self._engine.exponent
        self._spectrum: np.ndarray | None = None

    def _over(self: Own, scale: float) -> Own:
        made = self.__copy__()
        made.scale, made.lambda_max, made._spectrum = self.scale / scale, None, None
        return made

    @property
    def lambda_max(self) -> float | None:
        """The largest eigenvalue, in the kernel's units; None until a filter has needed it."""
        if self.scaled is self:
            return self._lambda_max
        over_scale = self.scaled.lambda_max
        return None if over_scale is None else over_scale * self.scale

    @lambda_max.setter
    def lambda_max(self, value: float | None) -> None:
        if self.scaled is self:
            self._lambda_max = value
        else:
            self.scaled.lambda_max = None if value is None else value / self.scale

    def _smaller(self) -> str:
        return "use a smaller image" + self.backend.elsewhere

    def _choose_storage(self, storage: str, needed: dict[str, int]) -> str:
        if storage == "coarse" and self.network.levels == 0:
            raise ValueError(
                "storage='coarse' is for networks of several resolutions, got one: use 'stream' or 'dense'"
            )
        if storage == "auto":
            free = AUTO_SHARE * self.backend.free()
            stationary = self._problem.noise and self.network.padding == "circular" and self.backend.has_fourier
            if stationary and fourier_bytes(self.network, self.image_shape) <= free:
                return "fourier"
            choices = ("dense", "coarse") if self.network.levels else ("dense",)
            return next((choice for choice in choices if needed[choice] <= free), "stream")
        if storage != "stream":
            self.backend.require(f"storage={storage!r}", needed[storage], "use storage='stream'")
        return storage

    def memory_estimate(self, columns: int = 3, device: str | None = None) -> dict[str, int]:
        """Bytes taken beyond the input and the result, the operator's construction included, predicted from the sizes.

        Parameters
        ----------
        columns : int
            Right-hand sides of a product.
        device : {"cpu", "cuda", "cuda:N"}, optional
            By default the operator's own.  For a card, the bytes of its memory.

        Returns
        -------
        dict
            "stream", "coarse" and "dense": the peak with each storage.

        Examples
        --------
        >>> K = nf.NTK(nf.vanilla_cnn(1, 3), np.eye(8))
        >>> sorted(K.memory_estimate(columns=1))
        ['coarse', 'dense', 'stream']
        """
        backend = self.backend if device is None else choose(device, self._problem, self.device)
        return backend.peaks(self._problem, columns)

    def _keep(self) -> None:
        """Compute what the storage keeps, before the first product."""
        with self._lock:
            if self.storage == "dense" and not self._engine.stored:
                self._engine.store(self._progress)
            if self.storage == "coarse" and not self._engine.coarse_kept:
                self._engine.keep_coarse(self._progress)

    def _matmat(self, V: np.ndarray) -> np.ndarray:
        """Theta V for V of shape (d, n), any real dtype; result (d, n) of the operator's dtype."""
        if self.scaled is not self:
            return np.asarray(self._in_units("the product", NUMPY, self.scaled._matmat(V)))
        at_once = self._columns_at_once(V.shape[1], results_there=self.backend.holds(NUMPY))
        self._keep()
        out = np.empty(V.shape, dtype=self.dtype)
        for start in range(0, V.shape[1], at_once):
            part = slice(start, start + at_once)
            if self.storage == "fourier":
                out[:, part] = self._filter(V[:, part])
            else:
                v = np.ascontiguousarray(V[:, part], dtype=self.dtype)
                out[:, part] = self._engine.product(v[:, :, None], self._progress)[:, :, 0]
        return out

    def working_bytes(self, columns: int) -> int:
        """Bytes that a product of so many columns takes beside its input and result, and beside what is held already.

        At the first product, with what the storage keeps from then on.

        Examples
        --------
        >>> K = nf.NTK(nf.vanilla_cnn(1, 3), np.eye(8), device="cpu")
        >>> 0 < K.working_bytes(1) < K.working_bytes(64)
        True
        """
        if self.storage == "fourier":
            kept = 0 if self._spectrum is not None else fourier_bytes(self.network, self.image_shape)
            return kept + 8 * FOURIER_NUMBERS * columns * int(self.shape[0])
        if columns not in self._product_parts:
            self._product_parts[columns] = self.backend.estimate(self._problem, columns)
        parts = self._product_parts[columns]
        if self._engine.stored or self._engine.coarse_kept:
            return parts["product"]
        bands = parts["coarse" if self.storage == "coarse" else "bands"]
        return parts["product"] + bands + (parts["store"] if self.storage == "dense" else 0)

    def host_bytes(self, columns: int) -> int:
        """Those of :meth:`working_bytes` that are in the host's memory.

        Examples
        --------
        >>> K = nf.NTK(nf.vanilla_cnn(1, 3), np.eye(8), device="cpu")
        >>> K.host_bytes(3) == K.working_bytes(3)  # all of them, on the CPU
        True
        """
        return self.backend.host_bytes(self.working_bytes(columns))

    def _columns_at_once(self, count: int, *, results_there: bool) -> int:
        """How many of ``count`` columns go through one sweep, fewer where memory is short; refuses what will not fit.

        ``results_there``: whether all results lie in the memory of the engine.
        """
        column = int(self.shape[0]) * int(self.dtype.itemsize)
        results = column * count * results_there

        def needed(n: int) -> int:
            return results + 2 * column * n + self.working_bytes(n)  # a part of V, and its result

        at_once = max(1, min(count, COLUMNS_PER_SWEEP))
        if needed(at_once) <= UNCHECKED_BYTES:
            return at_once
        budget = self.backend.budget()
        while at_once > 1 and not budget.fits(needed(at_once)):
            at_once //= 2
        fit = (budget.free - needed(1) + results) // column
        hint = f"{fit} columns would fit" if results_there and 0 < fit < count else self._smaller()
        if self.storage == "dense" and not self._engine.stored:
            hint = "use storage='stream'"
        budget.require(f"a product with {count} column{'s' * (count != 1)}", hint, needed(at_once))
        return at_once

    def _times(self, arrays: Arrays, V: Any) -> Any:
        if arrays is NUMPY:
            return self._matmat(V)
        if self.scaled is not self:
            return self._in_units("the product", arrays, self.scaled._times(arrays, V))
        results, at_once = [], self._columns_at_once(V.shape[1], results_there=True)
        self._keep()
        with arrays.current():
            for start in range(0, V.shape[1], at_once):
                v = arrays.asarray(V[:, start : start + at_once], self.dtype)
                results.append(arrays.product(self._engine, v, self._progress))
            if not results:  # no columns
                return arrays.zeros(V.shape, self.dtype)
            return results[0] if len(results) == 1 else arrays.concatenate(results, axis=1)

    def _filter(self, V: np.ndarray) -> np.ndarray:
        """Theta V where Theta(i, j) depends on j - i and on i modulo m = ``network.multiple``.

        Pixels are split into m^2 phases, i = a + m P with P on the coarse grid:
        (Theta v)_a(P) = sum_b sum_R G_ab(R - P) v_b(R), G_ab(D) = Theta(a, b + m D), a correlation for each (a, b).
        """
        m, (height, width) = self.network.multiple, self.image_shape
        coarse = (height // m, width // m)
        with self._lock:
            if self._spectrum is None:
                phases = [row * width + col for row in range(m) for col in range(m)]
                rows = self.columns(phases).T.astype(np.float64).reshape(m * m, *_phased(coarse, m))
                G = _to_phases(rows, m)  # (a, b, D)
                self._spectrum = np.conj(np.fft.rfft2(G))
        v = _to_phases(V.T.astype(np.float64).reshape(-1, *_phased(coarse, m)), m)  # (column, b, R)
        product = np.einsum("abyx,nbyx->nayx", self._spectrum, np.fft.rfft2(v))
        out = np.fft.irfft2(product, s=coarse)  # (column, a, P)
        image = out.reshape(-1, m, m, *coarse).transpose(0, 3, 1, 4, 2)
        return np.ascontiguousarray(image.reshape(len(v), -1).T, dtype=self.dtype)

    def diagonal(self) -> np.ndarray:
        """Theta(i, i) of every pixel, shape (d,); computed in double precision.

        Examples
        --------
        >>> K = nf.NTK(nf.vanilla_cnn(1, 3), np.eye(8))
        >>> bool(np.allclose(K.diagonal(), np.diagonal(K.dense())))
        True
        """
        if self.scaled is not self:
            return np.asarray(self._in_units("the diagonal", NUMPY, self.scaled.diagonal()))
        return np.asarray(self._engine.diagonal()[:, 0], dtype=self.dtype)

    def columns(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Some columns of the kernel, at the cost of the window that each pixel sees.

        Always on the CPU, in double precision, whatever the device; but where many columns make one sweep the faster
        way, and the matrix takes at most a quarter of the free memory, in the operator's precision from :meth:`dense`.

        Parameters
        ----------
        indices : sequence of int, length m
            Pixels, ``row*W + col``, each from 0 to d - 1.

        Returns
        -------
        ndarray, shape (d, m)

        Raises
        ------
        TypeError, ValueError
            If ``indices`` are no integers, or out of range.
        MemoryError
            Before any work, if the columns do not fit.

        Examples
        --------
        >>> K = nf.NTK(nf.vanilla_cnn(1, 3), np.eye(8))
        >>> K.columns([0, 9]).shape
        (64, 2)
        """
        pixels = as_pixels("indices", indices, self.shape[0])
        if self.scaled is not self:
            return np.asarray(self._in_units("a column", NUMPY, self.scaled.columns(pixels)))
        rows = 2 * pixels.size * self.shape[0] * self.dtype.itemsize  # as the engine gives them, and turned over
        hint = "ask for fewer columns at a time" if pixels.size > 1 else "use fewer threads, or a smaller image"
        what = f"{pixels.size} columns" if pixels.size != 1 else "a column"
        require_memory(what, rows, hint)  # before an engine is made for them
        require_memory(what, rows + self.columns_bytes(pixels.size), hint)
        if self._columns_by_sweep(pixels.size):
            return np.ascontiguousarray(self.dense()[:, pixels])
        engine = self._columns_engine(self._engine)
        columns = np.ascontiguousarray(engine.columns(pixels, self._progress).T)
        shift = engine.exponent - self._engine.exponent  # an engine beside this one chooses its own
        return columns if shift == 0 else columns * 2.0**shift

    def columns_bytes(self, count: int) -> int:
        """Bytes that so many columns take beside themselves: the whole matrix, or the engine's windows and fields.

        Examples
        --------
        >>> K = nf.NTK(nf.vanilla_cnn(1, 3), np.eye(8), device="cpu")
        >>> K.columns_bytes(4) > 0
        True
        """
        if self._columns_by_sweep(count):
            return self._dense_bytes()
        return int(self._columns_engine(self._engine).columns_bytes)

    def _columns_by_sweep(self, count: int) -> bool:
        """Tell whether the whole matrix is the faster way to ``count`` columns, and takes little memory."""
        if not self.backend.has_columns or count * self._column_cost() <= self._sweep_cost():
            return False
        return self._dense_bytes() <= AUTO_SHARE * self.backend.free()

    def _column_cost(self) -> float:
        """Pixel pairs of a sweep that one column is worth, at most: each convolution sees a part of the field."""
        return COLUMN_PAIR * len(self.network.convs) * self.network.receptive_field**2 * int(self.shape[0])

    def _sweep_cost(self) -> int:
        return len(self.network.convs) * int(self.shape[0]) ** 2 // 2

    def _dense_bytes(self) -> int:
        return int(self.shape[0]) ** 2 * int(self.dtype.itemsize)

    def dense(self) -> np.ndarray:
        """The whole matrix, a NumPy array of shape (d, d).

        Raises
        ------
        MemoryError
            Before any work, if d*d numbers do not fit.

        Examples
        --------
        >>> K = nf.NTK(nf.vanilla_cnn(1, 3), np.eye(8), dtype="float64")
        >>> theta = K.dense()
        >>> theta.shape, bool((theta == theta.T).all())
        ((64, 64), True)
        """
        if self.scaled is not self:
            return np.asarray(self._in_units("the matrix", NUMPY, self.scaled.dense()))
        hint = "use products (K @ v) or columns(), which never store it"
        self.backend.require_result("the dense matrix", self._dense_bytes(), hint)
        return np.asarray(self._engine.dense(self._progress)[0])

    def __copy__(self: Own) -> Own:
        """Return an operator with the same engine, which no product changes, and a lambda_max of its own."""
        made = type(self).__new__(type(self))
        made.__dict__.update(self.__dict__)
        made._scaled = None
        return made

    def __deepcopy__(self: Own, memo: dict[int, Any]) -> Own:
        return self.__copy__()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the image and the options, of which the operator is made anew; the callback of progress is dropped."""
        options = {
            "channel_axis": None if isinstance(self._image, NoiseInput) else -1,
            "device": self.device,
            "dtype": self.dtype.name,
            "storage": self.storage if self.storage in STORAGES else "auto",  # "fourier" is for "auto" to choose
            "threads": self.threads,
        }
        scaled = self.scale != 2.0**self._engine.exponent
        return _made_anew, (type(self), self.network, self._image, options, self.lambda_max, scaled)

    def __repr__(self) -> str:
        height, width = self.image_shape
        return (
            f"<{height}x{width} {type(self).__name__} of {self.network!r}, dtype={self.dtype}, "
            f"storage={self.storage!r}, device={self.device!r}>"
        )


@with_signature
class NTK(Kernel):
    """Exact tangent kernel Theta of an infinitely wide network on one image, over all pairs of its pixels.

    A symmetric positive semi-definite ``scipy.sparse.linalg.LinearOperator`` of shape (d, d), d = H*W; pixel (row, col)
    has the index ``row*W + col``.  All colours of an image share one kernel: apply it to (d, C) or (H, W, C).

    Parameters
    ----------
    network : Network
        The architecture; see :func:`ntkfast.vanilla_cnn`.
    image : array_like, shape (H, W) or with a channel axis, real; or NoiseInput
        The network's input.  Entries of the kernel are in its squared units.  Subtract the mean first when the kernel
        is to filter: see :func:`ntkfast.denoise_ntk`.  It may be a tensor of PyTorch, an array of CuPy or an
        ``xarray.DataArray``, and lie on a GPU; it is copied to the host once, where what a sweep reads of it is
        computed in double precision.
    channel_axis : int, optional
        Axis of the channels of an image of three dimensions; None is an image (H, W).
    device : {"auto", "cpu", "cuda", "cuda:N"}
        Where to compute.  "cuda" is the card that holds the image, or else the first one; "auto" is the card that holds
        the image, else the first one if it is there, the problem is large enough to gain
        (``engine.cuda.AUTO_PAIR_LAYERS``) and fits, else the CPU.  The attribute ``device`` says which it is.  On a
        card, products take arrays of NumPy, which are copied there and back, and arrays of CuPy and PyTorch on that
        card, which are not; the results are of the same kind.  They are computed on the caller's current stream, and
        are there when the call returns.
    dtype : {"float32", "float64"}
        Type of the engine's arithmetic and of all results.  float32 is exact to 1e-6 of the largest entry on natural
        images, and to 1e-5 on most of the tests' hard ones (docs/math.md, "Accuracy, measured").
    storage : {"auto", "stream", "coarse", "dense"}
        "stream" computes each entry anew in each product and keeps O(d) numbers, and with several resolutions a few
        bands of displacements of the coarser ones; "coarse" keeps all coarse fields that the finest resolution reads,
        after the first product (d^2/16 pairs or less; for networks of several resolutions); "dense" keeps half of the
        matrix after the first product; "auto" is the first of "dense", "coarse", "stream" that takes at most a quarter
        of the free memory.  With :class:`NoiseInput` and circular padding "auto" on the CPU is "fourier": the kernel
        repeats itself at every step of ``network.multiple`` pixels, and products are filters in the Fourier domain.
        The attribute ``storage`` says which it is.
    threads : int, optional
        Threads on the CPU, 1024 at most; by default all cores, or OMP_NUM_THREADS.
    progress : callable, optional
        Called with the fraction done, 0 to 1, at most every 50 ms during a product.  An exception it raises stops the
        product and is passed on.  It must not multiply with this operator while that computes what it keeps.

    Attributes
    ----------
    network, device, storage, threads, dtype
        As above; ``device`` and ``storage`` are what was chosen.
    image_shape : (int, int)
        (H, W) of the image.
    channels : int
        Channels of the image, 1 of noise.
    lambda_max : float or None
        Largest eigenvalue, in the kernel's units; None until a filter has needed it.
    shape : (int, int)
        (d, d).
    backend : engine.backend.Backend
        The device as an object, chosen once.
    scale : float
        A power of 2, 1 but where the entries leave the range of the dtype with some room for sums, as those of a deep
        network with small ``weight_var`` may in float32.
    scaled : NTK
        The kernel divided by ``scale``, which is what the engine computes with.  Filters use it, and so are as exact as
        for any other kernel; where ``scale`` is 1 it is the kernel itself.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; the message names it.  If the network's gain takes the
        kernel beyond what float64 holds.  Of products, columns and the matrix: if the dtype does not hold them.
    MemoryError
        Before any work, if the problem will not fit; the message names the bytes and the option that would.  The same
        of each product; it takes fewer columns at a time before it is refused.
    RuntimeError
        If device is "cuda" and there is no card, or no CUDA in this build: with what is missing.

    Notes
    -----
    Ctrl-C stops the constructor and every call within half a second; the GIL is free meanwhile.  The same input and
    thread count give the same bits.  The operator pickles: it is made anew from the image, kept for that in double
    precision, and the options, without ``progress``.  Source: Tachella, Tang, Davies, CVPR 2021 (arXiv 2006.02379);
    docs/math.md has the recursion.

    Examples
    --------
    >>> image = np.add.outer(np.arange(8.0), np.arange(8.0) ** 2)
    >>> K = nf.NTK(nf.vanilla_cnn(depth=1, kernel_size=3), image - image.mean())
    >>> K.shape, (K @ np.ones(64)).shape, K.apply(image).shape
    ((64, 64), (64,), (8, 8))
    >>> bool(np.allclose(K @ image.ravel(), K.dense() @ image.ravel()))
    True
    """

    kind = "ntk"


@with_signature
class NNGP(Kernel):
    """Exact covariance S of the output of an infinitely wide random network, over all pairs of pixels of one image.

    It is the kernel of the Gaussian process that such a network is before training, and an operator like :class:`NTK`,
    which describes the parameters, attributes and errors.  A network without a trainable layer has one too.

    Parameters
    ----------
    network, image, channel_axis, device, dtype, storage, threads, progress
        As for :class:`NTK`.

    Notes
    -----
    Source: Lee et al., "Deep neural networks as Gaussian processes", ICLR 2018; docs/math.md has the recursion.

    Examples
    --------
    >>> S = nf.NNGP(nf.vanilla_cnn(1, 3), np.eye(8), dtype="float64")
    >>> T = nf.NTK(nf.vanilla_cnn(1, 3), np.eye(8), dtype="float64")
    >>> bool(np.all(S.diagonal() <= T.diagonal()))  # T = S and what the earlier layers add to it
    True
    """

    kind = "nngp"


def _made_anew(
    kind: type[Kernel], network: Network, image: Any, options: dict[str, Any], lambda_max: float | None, scaled: bool
) -> Kernel:
    """Return the operator that was pickled."""
    operator = kind(network, image, **options)
    operator = operator.scaled if scaled else operator
    operator.lambda_max = lambda_max
    return operator


def _phased(coarse: tuple[int, int], m: int) -> tuple[int, int, int, int]:
    return coarse[0], m, coarse[1], m


def _to_phases(images: np.ndarray, m: int) -> np.ndarray:
    """(n, H/m, m, W/m, m) to (n, m*m, H/m, W/m)."""
    return images.transpose(0, 2, 4, 1, 3).reshape(len(images), m * m, images.shape[1], images.shape[3])


def fourier_bytes(network: Network, shape: tuple[int, int]) -> int:
    """Bytes of the spectra that storage="fourier" keeps: m^2 images of complex numbers for each of m^2 phases."""
    return 16 * network.multiple**2 * shape[0] * shape[1]
