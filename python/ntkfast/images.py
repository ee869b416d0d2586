"""Images, channels and pixels as callers give them, made into the arrays that everything else takes.

Images of other libraries add themselves by :func:`register_images`; arrays that lie in the memory of a device are
recognised by :mod:`ntkfast.engine.arrays`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, Protocol, TypeVar

import numpy as np
from scipy.sparse.linalg import LinearOperator

from . import _check
from ._libraries import LIBRARIES
from .engine.arrays import HOST, NUMPY, Arrays, in_memory_of_host, namespace, to_host
from .engine.backend import backend_of, has_backend
from .engine.memory import require_memory

# Largest magnitude of an image, and smallest of one that is not zero: its squares, times the gain of a network, must
# stay in the range of the type.
LARGEST = {"float32": 1e15, "float64": 1e120}
SMALLEST = {"float32": 1e-18, "float64": 1e-150}

# The same of a right-hand side: its norm must stay in the range of the type, and the square of that in double.
LARGEST_VECTOR = {"float32": 1e30, "float64": 1e120}
SMALLEST_VECTOR = {"float32": 1e-30, "float64": 1e-120}

# In an image less its mean, what is below this share of the image is the mean's rounding.
ROUNDING = 1e-14


class Shaped(Protocol):
    """An array of any library, to type checkers."""

    @property
    def shape(self) -> Any: ...

    @property
    def dtype(self) -> Any: ...


AnyArray = TypeVar("AnyArray", bound=Shaped)


class Images(ABC):
    """A library's images are NumPy's or a device's arrays underneath, and perhaps have a channel axis of their own."""

    @abstractmethod
    def to_array(self, name: str, value: Any) -> Any:
        """Return the numbers of the argument called ``name``: a NumPy array, or one in the memory of a device."""

    def channel_axis(self, value: Any) -> int | None:
        """Return the channel axis that ``value`` itself names, for a caller who names none; None where it has none."""
        return None

    @abstractmethod
    def restored(self, result: Any, like: Any) -> Any:
        """Return results of the kind of ``like``, an image, data or vectors that the caller gave.

        ``result``, an array of the kind that ``to_array`` gave or NumPy's, is a stack of images, each with its channels
        where ``like`` has them; what is returned is a stack too, and ``[0]`` of it is the first of them.
        """


# By the top-level module of a type: how its images are read, or the "module:Class" that says so, not imported yet.
_libraries: dict[str, Images | str] = dict(LIBRARIES)


def register_images(library: str, adapter: Images | str) -> None:
    """Let images of a library be taken, and results be given back in their kind.

    Parameters
    ----------
    library : str
        Top-level name of the module of its types, "xarray" say; it is not imported.
    adapter : Images, or str
        Asked before anything else looks at a value of these types; "module:Class" is imported at the first of them.
    """
    _libraries[library] = adapter


def _library_of(value: Any) -> Images | None:
    """Return the adapter of a value's library, or of that of a class that its own is made from; None for NumPy's."""
    if type(value) is np.ndarray:
        return None
    for kind in type(value).__mro__:
        library = kind.__module__.partition(".")[0]
        adapter = _libraries.get(library)
        if isinstance(adapter, str):
            module, _, name = adapter.partition(":")
            adapter = _libraries[library] = getattr(import_module(module), name)()
        if adapter is not None:
            return adapter
    return None


def opened(name: str, value: Any) -> Any:
    """Return the array in the argument called ``name`` if its library is registered, else the argument."""
    library = _library_of(value)
    return value if library is None else library.to_array(name, value)


def _opened(name: str, value: Any, channel_axis: int | None) -> tuple[Any, int | None]:
    """Return the array in an argument, and the axis of its channels."""
    library = _library_of(value)
    if library is None:
        return value, channel_axis
    own = library.channel_axis(value) if channel_axis is None else channel_axis
    return library.to_array(name, value), own


@dataclass(frozen=True)
class Layout:
    """How a caller laid out an image, so that results are as it.

    Attributes
    ----------
    axis : int or None
        Of the channels; None of a gray image, which has none.
    dtype : numpy dtype
    like : object
        What the caller gave.
    """

    axis: int | None
    dtype: np.dtype[Any]
    like: Any = field(repr=False, compare=False)

    def restored(self, path: np.ndarray) -> Any:
        """Images (n, H, W, C) as the caller wants them, the axis of n before all others, and of the caller's kind."""
        if self.axis is None:
            result = np.ascontiguousarray(path[..., 0], dtype=self.dtype)
        else:
            axis = self.axis if self.axis < 0 else self.axis + 1
            result = np.ascontiguousarray(np.moveaxis(path, -1, axis), dtype=self.dtype)
        library = _library_of(self.like)
        return result if library is None else library.restored(result, self.like)


def shape_of_image(name: str, value: Any, channel_axis: int | None) -> tuple[int, int, int]:
    """(H, W, C) of an image, of which nothing is copied."""
    value, channel_axis = _opened(name, value, channel_axis)
    shape = _check.real_numbers(name, value).shape if namespace(value) is NUMPY else tuple(value.shape)
    return _sides(shape, _check.channel_axis(name, shape, channel_axis))


def _sides(shape: tuple[int, ...], axis: int | None) -> tuple[int, int, int]:
    sides = list(shape)
    channels = 1 if axis is None else sides.pop(axis)
    return sides[0], sides[1], channels


def as_image(
    name: str, value: Any, channel_axis: int | None, dtype: np.dtype[Any], *, gray_too: bool = False
) -> np.ndarray:
    """``value``, of the host or of a device, as float64 of shape (H, W, C) on the host.

    With ``gray_too`` it may have no channels where ``channel_axis``, then that of another argument, is given.
    """
    value, channel_axis = _opened(name, value, channel_axis)
    value = to_host(value)
    shape = _check.real_numbers(name, value).shape
    axis = _check.channel_axis(name, shape, None if gray_too and len(shape) == 2 else channel_axis)
    _require_conversion(name, shape)
    array = _check.real_array(name, value)
    _require_magnitude(name, float(np.abs(array).max()), dtype)
    return _channels_last(array, axis).astype(np.float64)


def _channels_last(array: np.ndarray, axis: int | None) -> np.ndarray:
    return array[:, :, None] if axis is None else np.moveaxis(array, axis, -1)


def as_stack(
    name: str, value: Any, channel_axis: int | None, dtype: np.dtype[Any], *, frames: bool = False
) -> tuple[np.ndarray, Layout]:
    """An image as float64 (1, H, W, C), and how it was laid out; ``frames`` is that of :func:`_check.channel_axis`."""
    like = value
    value, channel_axis = _opened(name, value, channel_axis)
    if value is not like:
        value = to_host(value)  # an adapter's array may lie on a device
    shape = _check.real_numbers(name, value).shape
    axis = _check.channel_axis(name, shape, channel_axis, frames=frames)
    _require_conversion(name, shape)
    array = _check.real_array(name, value)
    given = np.asarray(value).dtype
    single = given.kind == "f" and given.itemsize <= 4  # in either byte order
    kept = np.dtype(np.float32 if single else np.float64)
    _require_magnitude(name, float(np.abs(array).max()), dtype)
    return _channels_last(array, axis)[None].astype(np.float64), Layout(axis, kept, like)


@dataclass(frozen=True)
class Frames:
    """A set of pictures: a list or tuple of arrays, or an array with an axis of pictures.

    Attributes
    ----------
    pictures : tuple of array_like
        One by one, each as a caller would give it alone.
    channel_axis : int or None
        That of each picture.
    like : object
        What the caller gave.
    axis : int or None
        The axis of the pictures in it; None of a list or tuple.
    """

    pictures: tuple[Any, ...]
    channel_axis: int | None
    like: Any = field(repr=False, compare=False)
    axis: int | None

    def named(self, name: str) -> tuple[tuple[Any, ...], tuple[str, ...], int | None]:
        """The pictures, what messages call them, and their channel axis."""
        names = tuple(f"{name}[{n}]" for n in range(len(self.pictures)))
        return self.pictures, names, self.channel_axis

    def restored(self, results: Sequence[Any]) -> Any:
        """One result a picture, each of the kind of the picture, as a set of the caller's kind."""
        if self.axis is None:
            return tuple(results) if isinstance(self.like, tuple) else list(results)
        stack = np.stack(results, axis=self.axis)
        library = _library_of(self.like)
        return stack if library is None else library.restored(stack[None], self.like)[0]


def as_frames(name: str, value: Any, channel_axis: int | None, frame_axis: int | None) -> Frames | None:
    """The set of pictures that ``value`` is; None if it is one picture.

    Raises
    ------
    TypeError, ValueError
        If it is a list of anything but arrays, such as a picture written as a list of numbers, or an empty one; or if
        ``frame_axis`` does not fit what it is.
    """
    if isinstance(value, (list, tuple)):
        if frame_axis is not None:
            raise ValueError(f"frame_axis is for an array of pictures: {name} is a {type(value).__name__} already")
        if not value:
            raise ValueError(f"{name} must not be empty, got {value!r}")
        for n, picture in enumerate(value):
            if not hasattr(picture, "shape"):
                raise TypeError(
                    f"{name} must be an array, or a list of arrays for a set of pictures, but {name}[{n}] is of type "
                    f"{type(picture).__name__}: give numpy.asarray({name}) for one picture"
                )
        return Frames(tuple(value), channel_axis, value, None)
    if frame_axis is None:
        return None
    array, channel_axis = _opened(name, value, channel_axis)
    array = to_host(array)
    wanted = 3 if channel_axis is None else 4
    shape, frame = _check.real_numbers(name, array).shape, _check.integer("frame_axis", frame_axis)
    if len(shape) != wanted:
        given = "frame_axis is" if channel_axis is None else "frame_axis and channel_axis are"
        hint = ": pass channel_axis too for a stack of colour images" * (channel_axis is None and len(shape) == 4)
        raise ValueError(f"{name} must have {wanted} dimensions when {given} given, got shape {shape}{hint}")
    frame = _axis_in("frame_axis", frame, wanted)
    if channel_axis is not None:
        channels = _axis_in("channel_axis", _check.integer("channel_axis", channel_axis), wanted)
        if channels == frame:
            raise ValueError(f"frame_axis and channel_axis must be two axes, got {frame_axis} and {channel_axis}")
        channel_axis = channels - (channels > frame)
    return Frames(tuple(np.moveaxis(np.asarray(array), frame, 0)), channel_axis, value, frame)


def _axis_in(name: str, axis: int, dimensions: int) -> int:
    """An axis counted from the front."""
    if not -dimensions <= axis < dimensions:
        raise ValueError(f"{name} must lie between {-dimensions} and {dimensions - 1}, got {axis}")
    return axis % dimensions


def as_data(name: str, value: Any, operator: LinearOperator, channel_axis: int | None) -> tuple[np.ndarray, Layout]:
    """Data of a linear operator of n rows as float64 (n, C), and how they were laid out.

    They are (n,), or in the operator's ``data_shape``, or, where it picks ``known`` pixels, the whole image; and in
    any of these beside a channel axis.
    """
    like = value
    value, channel_axis = _opened(name, value, channel_axis)
    value, n = to_host(value), operator.shape[0]
    known, data_shape = getattr(operator, "known", None), getattr(operator, "data_shape", (n,))
    shapes = [(n,)] + [s for s in (data_shape, None if known is None else known.shape) if s not in (None, (n,))]
    # Missing pixels may be NaN: they are dropped before anything is checked.
    array = _check.real_numbers(name, value) if known is not None else _check.real_array(name, value)
    axis = None
    if channel_axis is not None:
        axis = _check.integer("channel_axis", channel_axis)
        if not -array.ndim <= axis < array.ndim:
            raise ValueError(f"channel_axis must be an axis of {name}, which has shape {array.shape}, got {axis}")
        array = np.moveaxis(array, axis, -1)
    lead = array.shape if axis is None else array.shape[:-1]
    if lead not in shapes:
        wanted = " or ".join(str(s) for s in shapes)
        channels = "" if axis is None else ", beside the channel axis"
        forgotten = [n for n in range(array.ndim) if axis is None and lead[:n] + lead[n + 1 :] in shapes]
        hint = f": pass channel_axis={forgotten[-1] - array.ndim}" if forgotten else ""
        raise ValueError(
            f"{name} must have shape {wanted}{channels}, for A of shape {operator.shape} and "
            f"channel_axis={channel_axis}, got {np.shape(value)}{hint}"
        )
    if known is not None:
        array = _check.real_array(name, array[known] if lead == known.shape else array)
    kept = array.dtype if np.asarray(value).dtype == np.float32 else np.dtype(np.float64)
    if axis is not None and axis == len(lead):
        axis = -1  # the last of y is the last of the result, which may have another number of axes
    return array.reshape(n, -1).astype(np.float64), Layout(axis, kept, like)


def as_planes(name: str, value: Any, channel_axis: int | None) -> np.ndarray:
    """An image as a finite array (1, C, H, W) of float32 or float64: what modules of torch take."""
    value, channel_axis = _opened(name, value, channel_axis)
    array = _check.real_array(name, to_host(value))
    return _channels_last(array, _check.channel_axis(name, array.shape, channel_axis)).transpose(2, 0, 1)[None]


def as_values(name: str, value: Any, shape: tuple[int, ...], refusal: str) -> np.ndarray:
    """Finite numbers of this shape in float64; ``refusal`` is the message about another shape, up to that shape."""
    array = _check.real_array(name, to_host(opened(name, value))).astype(np.float64)
    if array.shape != shape:
        raise ValueError(f"{refusal} {array.shape}")
    return array


def as_vectors(name: str, value: Any, d: int) -> np.ndarray:
    """Finite vectors, (d,) or (d, k), as (d, k) of float32 or float64."""
    array = _check.real_array(name, to_host(opened(name, value)))
    if array.ndim not in (1, 2) or array.shape[0] != d:
        raise ValueError(f"{name} must have shape ({d},) or ({d}, k), got {array.shape}")
    return array.reshape(d, -1)


def last_axis(picture: np.ndarray) -> int | None:
    """``channel_axis`` of a picture (H, W) or (H, W, C)."""
    return -1 if picture.ndim == 3 else None


def as_size(shape: Any) -> tuple[int, int]:
    """The argument ``shape``, (H, W)."""
    if not isinstance(shape, (tuple, list)) or len(shape) != 2:
        raise TypeError(f"shape must be two integers (H, W), got {shape!r}")
    height, width = (_check.integer("shape", n) for n in shape)
    if min(height, width) < 1:
        raise ValueError(f"shape must be two positive integers, got {(height, width)}")
    return height, width


@dataclass(frozen=True)
class Columns:
    """Right-hand sides of a linear operator as it takes them, and how their caller laid them out.

    Attributes
    ----------
    values : array, shape (d, n), real
        NumPy's, or of the device of the operator.  Of complex right-hand sides the real parts come first, then the
        imaginary ones: a real operator maps either by itself.
    arrays : Arrays
        The kind of ``values``.
    shape : tuple of int
        The caller's.
    paired : bool
        Whether the caller's are complex.
    batch : str
        "" where the pixels come first in ``shape``; "vectors" where they come last, "matrices" where they come last but
        one.
    library : Images or None
        What gives results back in the caller's kind, where that is neither NumPy's nor the device's.
    like : object
        What the caller gave.
    """

    values: Any
    arrays: Arrays
    shape: tuple[int, ...]
    paired: bool
    batch: str
    library: Images | None
    like: Any = field(repr=False, compare=False)

    def restored(self, results: Any) -> Any:
        """Return results (..., d, n), stacks of columns like ``values``, as the caller laid them out."""
        if self.paired:
            half = results.shape[-1] // 2
            results = results[..., :half] + 1j * results[..., half:]
        lead, d = tuple(results.shape[:-2]), results.shape[-2]
        if self.batch == "vectors":
            results = results.swapaxes(-1, -2)
        elif self.batch == "matrices":
            split = results.reshape(*lead, d, *self.shape[:-2], self.shape[-1])
            results = self.arrays.moveaxis(split, len(lead), -2)
        results = results.reshape(lead + self.shape)
        if isinstance(self.like, np.matrix) and not lead:
            return np.asmatrix(results)
        if self.library is None:
            return results
        return self.library.restored(results, self.like) if lead else self.library.restored(results[None], self.like)[0]


def _entered(operator: LinearOperator, name: str, value: Any) -> tuple[Any, Arrays, Images | None]:
    """Return the numbers of a right-hand side, NumPy's or on the operator's device, their kind, and their library."""
    arrays, here = namespace(value), backend_of(operator)
    if arrays is not NUMPY and here.holds(arrays):
        return value, arrays, None
    if arrays is not NUMPY and (here.name != HOST or not in_memory_of_host(value)):
        require_device(operator, arrays, name)
    array, library = opened(name, value), _library_of(value)
    arrays = namespace(array)
    if arrays is NUMPY:
        return _check.as_array(name, array), NUMPY, library
    require_device(operator, arrays, name)
    return array, arrays, library


def as_columns(operator: LinearOperator, name: str, value: Any) -> Columns:
    """Return finite right-hand sides that are shaped as vectors over pixels, (d,) or (d, n), or as images."""
    array, arrays, library = _entered(operator, name, value)
    shape, paired = tuple(array.shape), arrays.kind(array) == "c"
    parts = arrays.stack([array.real, array.imag]) if paired else array
    parts = _check.real_array(name, parts) if arrays is NUMPY else _device_array(arrays, name, parts)
    if arrays.kind(parts) == "f":  # integers are in the range of either type
        _require_magnitude(name, arrays.largest(parts), operator.dtype, vector=True)
    d = operator.shape[0]
    image_shape = getattr(operator, "image_shape", None)
    vectors = len(shape) in (1, 2) and shape[0] == d
    image = image_shape is not None and image_shape in (shape, shape[:-1])
    if not vectors and not image:
        wanted = f"({d},) or ({d}, n)"
        if image_shape is not None:
            wanted += f", or {image_shape} or ({', '.join(map(str, image_shape))}, n)"
        raise ValueError(f"{name} must have shape {wanted}, got {shape}")
    columns = arrays.concatenate([part.reshape(d, -1) for part in parts], 1) if paired else parts.reshape(d, -1)
    return Columns(columns, arrays, shape, paired, "", library, value)


def as_factors(operator: LinearOperator, value: Any, *, vectors: bool) -> Columns:
    """Return what an operator with d columns is multiplied with: vectors or matrices, or batches of these.

    With ``vectors`` they are (..., d), or one column (d, 1); else (d,) or (..., d, n), as in SciPy from 1.18 on.
    """
    array, arrays, library = _entered(operator, "the array", value)
    d, shape, kind = operator.shape[1], tuple(array.shape), arrays.kind(array)
    if kind not in "fiubc":
        raise TypeError(f"the operator applies to real and complex arrays, got dtype {array.dtype}")
    one = shape == (d,) or (vectors and shape == (d, 1))
    axis = -1 if vectors and not one else -2
    if not one and (len(shape) < 2 or shape[axis] != d):
        wanted = f"(..., {d}) or ({d}, 1)" if vectors else f"({d},) or (..., {d}, n)"
        image_shape = getattr(operator, "image_shape", None)
        hint = ": apply takes images" * (hasattr(operator, "apply") and image_shape in (shape, shape[:-1]))
        raise ValueError(f"dimension mismatch: the array must have shape {wanted}, got {shape}{hint}")
    if one or len(shape) == 2:
        batch = "vectors" if vectors and not one else ""
        columns = array.reshape(d, -1) if not batch else array.swapaxes(0, 1)
    else:
        batch = "vectors" if vectors else "matrices"
        columns = array.reshape(-1, d).swapaxes(0, 1) if vectors else arrays.moveaxis(array, -2, 0).reshape(d, -1)
    if kind == "c":
        columns = arrays.concatenate([columns.real, columns.imag], 1)
    return Columns(columns, arrays, shape, kind == "c", batch, library, value)


def as_pixels(name: str, indices: Any, d: int) -> np.ndarray:
    """Indices of pixels as int64 of shape (m,), or an error naming the argument."""
    try:
        pixels = np.asarray(indices)
    except ValueError as error:  # rows of unequal length
        raise TypeError(f"{name} must be a 1-D sequence of integers, got {indices!r}") from error
    if pixels.ndim != 1 or (pixels.size and pixels.dtype.kind not in "iu"):
        raise TypeError(f"{name} must be a 1-D sequence of integers, got {indices!r}")
    if pixels.size and (pixels.min() < 0 or pixels.max() >= d):
        raise ValueError(f"{name} must lie between 0 and {d - 1}, got {int(pixels.min())} to {int(pixels.max())}")
    return pixels.astype(np.int64)


def next_multiple(length: int, m: int) -> int:
    """The least multiple of m from ``length`` on: sides that a network of several resolutions takes."""
    return -(-length // m) * m


def without_mean(images: np.ndarray) -> np.ndarray:
    """Images (..., H, W, C) less the mean of each channel; zeros where nothing but the mean's rounding is left."""
    centred = images - images.mean(axis=(-3, -2), keepdims=True)
    flat = np.abs(centred).max(axis=(-3, -2), keepdims=True) <= ROUNDING * np.abs(images).max()
    return np.where(flat, 0.0, centred)


def require_device(operator: LinearOperator, arrays: Arrays, name: str) -> None:
    """Refuse an array on a device unless the operator is on the same one."""
    there, here = arrays.device, backend_of(operator).name
    if there in (HOST, here):
        return
    if not has_backend(operator):
        raise ValueError(f"{name} is on {there}, but the operator is on the CPU: give a NumPy array")
    if here == HOST:
        raise ValueError(
            f"{name} is on {there}, but the operator is on the CPU: make it with NTK(..., device={there!r}), "
            "or give a NumPy array"
        )
    raise ValueError(
        f"{name} is on {there}, but the operator is on {here}: make it with NTK(..., device={there!r}), "
        f"or move the array to {here}"
    )


def _device_array(arrays: Arrays, name: str, value: Any) -> Any:
    """As real_array, of an array on the operator's device."""
    if arrays.kind(value) not in "fiub":
        raise TypeError(f"{name} must be a real numeric array, got dtype {value.dtype}")
    if 0 in value.shape:
        raise ValueError(f"{name} must not be empty, got shape {tuple(value.shape)}")
    count = arrays.not_finite(value)
    if count:
        raise ValueError(f"{name} must be finite, got {count} NaN or infinite values")
    return value


def _require_conversion(name: str, shape: tuple[int, ...]) -> None:
    """Refuse an image of a shape whose copies in double precision will not fit."""
    copies = 2 * 8 + 1  # as float64, magnitudes, and which numbers are finite
    require_memory(f"{name} in double precision", copies * math.prod(shape), "use a smaller image")


def _require_magnitude(name: str, largest: float, dtype: np.dtype[Any], *, vector: bool = False) -> None:
    """Refuse an image, or a right-hand side, whose squares leave the range of the type."""
    largest_of, smallest_of = (LARGEST_VECTOR, SMALLEST_VECTOR) if vector else (LARGEST, SMALLEST)
    most, least = largest_of[dtype.name], smallest_of[dtype.name]
    if largest > most:
        raise ValueError(f"{name} must have magnitudes up to {most:g} for dtype {dtype.name}, got {largest:g}")
    if 0 < largest < least:
        raise ValueError(
            f"{name} must have magnitudes of {least:g} or more for dtype {dtype.name}, got at most {largest:g}: "
            "give it in larger units"
        )
