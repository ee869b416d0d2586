"""The exact kernel over all pairs of pixels of one image, as a linear operator that never stores it unless told to."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.sparse.linalg import LinearOperator

from . import _engine
from .inputs import NoiseInput
from .network import Network, _integer

__all__ = ["NTK"]

KERNELS = ("ntk", "nngp")
DEVICES = ("auto", "cpu", "cuda")
STORAGES = ("auto", "stream", "coarse", "dense")

# storage="auto" keeps what takes at most this share of the memory that is free: a filter needs 15 to 30 products, and
# reading the kernel, or the coarse fields of a network, is faster than computing it again (bench/test_products.py,
# bench/resolutions.py).
AUTO_SHARE = 0.25

# Right-hand sides that go through one sweep; more than these and the accumulators leave the cache.
COLUMNS_PER_SWEEP = 64

# Largest magnitude of an image: its squares, times the gain of a network, must stay in the range of the type.
LARGEST = {"float32": 1e15, "float64": 1e120}


class NTK(LinearOperator):  # type: ignore[misc]
    """Exact kernel of an infinitely wide network on one image, over all pairs of its pixels.

    A symmetric positive semi-definite ``scipy.sparse.linalg.LinearOperator`` of shape (d, d), d = H*W; pixel (row, col)
    has the index ``row*W + col``.  All colours of an image share one kernel: apply it to (d, C) or (H, W, C).

    Parameters
    ----------
    network : Network
        The architecture; see :func:`ntkfast.vanilla_cnn`.
    image : array_like, shape (H, W) or with a channel axis, real; or NoiseInput
        The network's input.  Entries of the kernel are in its squared units.  Subtract the mean first when the kernel
        is to filter: see :func:`ntkfast.denoise_ntk`.
    kernel : {"ntk", "nngp"}
        The neural tangent kernel Theta, or the covariance S of the random network's output.
    channel_axis : int, optional
        Axis of the channels of a 3-D image; None is -1.
    device : {"auto", "cpu", "cuda"}
        Where to compute.  This version has the CPU engine.
    dtype : {"float32", "float64"}
        Type of the engine's arithmetic and of all results.  float32 is exact to 1e-6 of the largest entry on natural
        images, and to 1e-5 on the hardest of the tests (docs/math.md, "Accuracy, measured").
    storage : {"auto", "stream", "coarse", "dense"}
        "stream" computes each entry anew in each product and keeps O(d) numbers, and with several resolutions a few
        bands of displacements of the coarser ones; "coarse" keeps all coarse fields that the finest resolution reads,
        after the first product (d^2/16 pairs or less; for networks of several resolutions); "dense" keeps half of the
        matrix after the first product; "auto" is the first of "dense", "coarse", "stream" that takes at most a quarter
        of the free memory.  With :class:`NoiseInput` and circular padding "auto" is "fourier": the kernel repeats
        itself at every step of ``network.multiple`` pixels, and products are filters in the Fourier domain.  The
        attribute ``storage`` says which it is.
    threads : int, optional
        Threads of the CPU engine; by default all cores, or OMP_NUM_THREADS.
    progress : callable, optional
        Called with the fraction done, 0 to 1, at most every 50 ms during a product.  An exception it raises stops the
        product and is passed on.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range; the message names it.
    MemoryError
        Before any work, if the problem will not fit; the message names the bytes and the option that would.

    Notes
    -----
    Ctrl-C stops a running product within half a second; the GIL is free meanwhile.  The same input and thread count
    give the same bits.  Source: Tachella, Tang, Davies, CVPR 2021 (arXiv 2006.02379); docs/math.md has the recursion.
    """

    def __init__(
        self,
        network: Network,
        image: Any,
        *,
        kernel: str = "ntk",
        channel_axis: int | None = -1,
        device: str = "auto",
        dtype: Any = "float32",
        storage: str = "auto",
        threads: int | None = None,
        progress: _engine.Progress | None = None,
    ) -> None:
        if not isinstance(network, Network):
            raise TypeError(f"network must be an ntkfast.Network, got {network!r}")
        self.kernel = _choice("kernel", kernel, KERNELS)
        if self.kernel == "ntk" and not network.trainable:
            raise ValueError("network must have a trainable Conv for kernel='ntk', got all of them frozen")
        if _choice("device", device, DEVICES) == "cuda":
            raise RuntimeError("device='cuda' needs a build of ntkfast with CUDA, and this one has none: use 'cpu'")
        if progress is not None and not callable(progress):
            raise TypeError(f"progress must be callable, got {progress!r}")
        real = _dtype(dtype)
        noise = isinstance(image, NoiseInput)
        pixels = np.zeros((*image.shape, 1)) if noise else as_image("image", image, channel_axis, real)
        network.check_size(*pixels.shape[:2])

        self.network = network
        self.device = "cpu"
        self.image_shape: tuple[int, int] = pixels.shape[:2]
        self.channels = int(pixels.shape[2])
        self.threads = _engine.threads(threads)
        self.lambda_max: float | None = None  # largest eigenvalue, once a filter has found it
        self._progress = progress
        self._lock = threading.Lock()
        d = pixels.shape[0] * pixels.shape[1]
        super().__init__(real, (d, d))

        self._stationary = noise and network.padding == "circular"
        bytes_needed = self.memory_estimate()
        _engine.require_memory("the engine's fields and one product", bytes_needed["stream"], "use a smaller image")
        self.storage = self._choose_storage(_choice("storage", storage, STORAGES), bytes_needed)
        self._engine = _engine.make(network, pixels[None], noise=noise, kernel=kernel, dtype=real, threads=self.threads)
        self._spectrum: np.ndarray | None = None

    def _choose_storage(self, storage: str, needed: dict[str, int]) -> str:
        if storage == "coarse" and self.network.levels == 0:
            raise ValueError(
                "storage='coarse' is for networks of several resolutions, got one: use 'stream' or 'dense'"
            )
        if storage == "auto":
            free = AUTO_SHARE * _engine.available_memory()
            if self._stationary and fourier_bytes(self.network, self.image_shape) <= free:
                return "fourier"
            choices = ("dense", "coarse") if self.network.levels else ("dense",)
            return next((choice for choice in choices if needed[choice] <= free), "stream")
        if storage != "stream":
            _engine.require_memory(f"storage={storage!r}", needed[storage], "use storage='stream'")
        return storage

    def memory_estimate(self, columns: int = 3) -> dict[str, int]:
        """Bytes taken beyond the input and the result, predicted from the sizes.

        Parameters
        ----------
        columns : int
            Right-hand sides of a product.

        Returns
        -------
        dict
            "stream", "coarse" and "dense": the peak during a product with each storage.
        """
        height, width = self.image_shape
        parts = _engine.estimate(
            self.network,
            (1, height, width, self.channels),
            kernel=self.kernel,
            columns=columns,
            dtype=self.dtype,
            threads=self.threads,
        )
        always = parts["fields"] + parts["product"]
        stream = always + parts["bands"]
        return {"stream": stream, "coarse": always + parts["coarse"], "dense": stream + parts["store"]}

    def _matmat(self, V: np.ndarray) -> np.ndarray:
        """Theta V for V of shape (d, n), any real dtype; result (d, n) of the operator's dtype."""
        if np.iscomplexobj(V):
            raise TypeError(f"the kernel applies to real vectors, got dtype {V.dtype}")
        if self.storage == "fourier":
            return self._filter(V)
        with self._lock:
            if self.storage == "dense" and not self._engine.stored:
                self._engine.store(self._progress)
            if self.storage == "coarse" and not self._engine.coarse_kept:
                self._engine.keep_coarse(self._progress)
        out = np.empty(V.shape, dtype=self.dtype)
        for start in range(0, V.shape[1], COLUMNS_PER_SWEEP):
            part = slice(start, start + COLUMNS_PER_SWEEP)
            v = np.ascontiguousarray(V[:, part], dtype=self.dtype)
            out[:, part] = self._engine.product(v[:, :, None], self._progress)[:, :, 0]
        return out

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

    def _matvec(self, v: np.ndarray) -> np.ndarray:
        return self._matmat(np.asarray(v).reshape(-1, 1))

    def _adjoint(self) -> NTK:
        return self  # symmetric

    _transpose = _adjoint

    def apply(self, image: Any) -> np.ndarray:
        """Theta times an image, channel by channel.

        Parameters
        ----------
        image : array_like, shape (H, W), (H, W, n), (d,) or (d, n), real
            Need not have as many channels as the kernel's own image.

        Returns
        -------
        ndarray
            Of the same shape, of the operator's dtype.
        """
        columns, shape = as_columns(self, "image", image)
        return np.asarray(self.matmat(columns)).reshape(shape)

    def diagonal(self) -> np.ndarray:
        """Theta(i, i) of every pixel, shape (d,); computed in double precision."""
        return np.asarray(self._engine.diagonal()[:, 0], dtype=self.dtype)

    def columns(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Some columns of the kernel, at the cost of the window that each pixel sees, not of a sweep.

        Parameters
        ----------
        indices : sequence of int, length m
            Pixels, ``row*W + col``, each from 0 to d - 1.

        Returns
        -------
        ndarray, shape (d, m)
        """
        d = self.shape[0]
        pixels = np.asarray(indices)
        if pixels.ndim != 1 or (pixels.size and pixels.dtype.kind not in "iu"):
            raise TypeError(f"indices must be a 1-D sequence of integers, got {indices!r}")
        if pixels.size and (pixels.min() < 0 or pixels.max() >= d):
            raise ValueError(f"indices must lie between 0 and {d - 1}, got {int(pixels.min())} to {int(pixels.max())}")
        needed = pixels.size * d * self.dtype.itemsize
        _engine.require_memory(f"{pixels.size} columns", 2 * needed, "ask for fewer columns at a time")
        if pixels.size * self._column_cost() > self._sweep_cost() and self._dense_fits():
            return np.ascontiguousarray(self.dense()[:, pixels])
        return np.ascontiguousarray(self._engine.columns(pixels.astype(np.int64), self._progress).T)

    def _column_cost(self) -> int:
        """Pixel pairs that one column passes through the convolutions, at most: each sees a part of the field."""
        return len(self.network.convs) * self.network.receptive_field**2 * int(self.shape[0])

    def _sweep_cost(self) -> int:
        return len(self.network.convs) * int(self.shape[0]) ** 2 // 2

    def _dense_fits(self) -> bool:
        needed = int(self.shape[0]) ** 2 * int(self.dtype.itemsize)
        return needed <= AUTO_SHARE * _engine.available_memory()

    def dense(self) -> np.ndarray:
        """The whole matrix, shape (d, d).

        Raises
        ------
        MemoryError
            Before any work, if d*d numbers do not fit.
        """
        needed = self.shape[0] ** 2 * self.dtype.itemsize
        _engine.require_memory("the dense matrix", needed, "use products (K @ v) or columns(), which never store it")
        return np.asarray(self._engine.dense(self._progress)[0])

    def affinity(self, row: int, col: int) -> np.ndarray:
        """Filter weights of one pixel: its row of the kernel, laid out as an image.

        Parameters
        ----------
        row, col : int
            The pixel, 0 <= row < H and 0 <= col < W.

        Returns
        -------
        ndarray, shape (H, W)
            Entry (r, c) is Theta((row, col), (r, c)): how much the pixel learns from pixel (r, c) in one step.
        """
        place = []
        for name, value, size in (("row", row, self.image_shape[0]), ("col", col, self.image_shape[1])):
            number = _integer(name, value)
            if not 0 <= number < size:
                raise ValueError(f"{name} must lie between 0 and {size - 1}, got {number}")
            place.append(number)
        return self.columns([place[0] * self.image_shape[1] + place[1]]).reshape(self.image_shape)

    def __repr__(self) -> str:
        height, width = self.image_shape
        return (
            f"<{height}x{width} {self.kernel.upper()} of {self.network!r}, dtype={self.dtype}, "
            f"storage={self.storage!r}, device={self.device!r}>"
        )


def _phased(coarse: tuple[int, int], m: int) -> tuple[int, int, int, int]:
    return coarse[0], m, coarse[1], m


def _to_phases(images: np.ndarray, m: int) -> np.ndarray:
    """(n, H/m, m, W/m, m) to (n, m*m, H/m, W/m)."""
    return images.transpose(0, 2, 4, 1, 3).reshape(len(images), m * m, images.shape[1], images.shape[3])


def fourier_bytes(network: Network, shape: tuple[int, int]) -> int:
    """Bytes of the spectra that storage="fourier" keeps: m^2 images of complex numbers for each of m^2 phases."""
    return 16 * network.multiple**2 * shape[0] * shape[1]


def _choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {choices}, got {value!r}")
    if value not in choices:
        raise ValueError(f"{name} must be one of {choices}, got {value!r}")
    return value


def _dtype(value: Any) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = np.dtype(value)
    except TypeError as error:
        raise TypeError(f"dtype must be 'float32' or 'float64', got {value!r}") from error
    if dtype not in (np.float32, np.float64) or value is None:
        raise ValueError(f"dtype must be 'float32' or 'float64', got {value!r}")
    return dtype


def real_array(name: str, value: Any) -> np.ndarray:
    """``value`` as a finite real array of float32 or float64, or an error naming the argument."""
    try:
        array = np.asarray(value)
    except ValueError as error:  # rows of unequal length
        raise ValueError(f"{name} must be a real numeric array: {error}") from error
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be a real numeric array, got dtype {array.dtype}")
    if array.dtype.kind != "f" or array.dtype.itemsize not in (4, 8):
        array = array.astype(np.float64)
    if array.size == 0:
        raise ValueError(f"{name} must not be empty, got shape {array.shape}")
    if not np.isfinite(array).all():
        count = int(array.size - np.isfinite(array).sum())
        raise ValueError(f"{name} must be finite, got {count} NaN or infinite values")
    return array


def as_image(name: str, value: Any, channel_axis: int | None, dtype: np.dtype[Any]) -> np.ndarray:
    """``value`` as float64 of shape (H, W, C)."""
    array = real_array(name, value)
    if array.ndim == 2:
        array = array[:, :, None]
    elif array.ndim == 3:
        axis = _integer("channel_axis", -1 if channel_axis is None else channel_axis)
        if not -3 <= axis < 3:
            raise ValueError(f"channel_axis must lie between -3 and 2, got {axis}")
        array = np.moveaxis(array, axis, -1)
    else:
        raise ValueError(
            f"{name} must have shape (H, W) or, with a channel axis, 3 dimensions, got shape {array.shape}"
        )
    largest, limit = float(np.abs(array).max()), LARGEST[dtype.name]
    if largest > limit:
        raise ValueError(f"{name} must have magnitudes up to {limit:g} for dtype {dtype.name}, got {largest:g}")
    return array.astype(np.float64)


def as_columns(operator: LinearOperator, name: str, value: Any) -> tuple[np.ndarray, tuple[int, ...]]:
    """``value`` as (d, n) and its own shape, where it is shaped as vectors over pixels or as an image."""
    array = real_array(name, value)
    d = operator.shape[0]
    image_shape = getattr(operator, "image_shape", None)
    if array.ndim in (1, 2) and array.shape[0] == d:
        return array.reshape(d, -1), array.shape
    if image_shape is not None and array.ndim in (2, 3) and array.shape[:2] == image_shape:
        return array.reshape(d, -1), array.shape
    wanted = f"({d},) or ({d}, n)"
    if image_shape is not None:
        wanted += f", or {image_shape} or {(*image_shape, 'n')}"
    raise ValueError(f"{name} must have shape {wanted}, got {array.shape}")
