"""Checks of arguments: each returns the value in its own type, or raises an error naming the argument and the value."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = [
    "as_array",
    "at_least",
    "callback",
    "channel_axis",
    "choice",
    "float_dtype",
    "generator",
    "instance",
    "integer",
    "not_negative",
    "one_or_more",
    "positive",
    "real",
    "real_array",
    "real_vectors",
    "steps",
]

# The argument ``rng``, see :func:`generator`.
Random = int | np.random.Generator | None

# Larger integers are not all numbers of double precision, in which the powers of gradient descent are computed, and the
# grids of steps that trainings record.
MOST_STEPS = 2**53

# An axis that is no longer is taken for one of channels in messages.
MOST_CHANNELS = 4


def real(name: str, value: Any) -> float:
    """``value`` as a finite float."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a real number, got {value!r}")
    try:
        number = float(value)
    except OverflowError:
        raise ValueError(f"{name} must be finite, got a number beyond the range of double precision") from None
    if not math.isfinite(number):
        raise ValueError(f"{name} must be finite, got {number!r}")
    return number


def positive(name: str, value: Any) -> float:
    """``value`` as a float above 0."""
    number = real(name, value)
    if number <= 0:
        raise ValueError(f"{name} must be positive, got {number!r}")
    return number


def not_negative(name: str, value: Any) -> float:
    """``value`` as a float of 0 or more."""
    number = real(name, value)
    if number < 0:
        raise ValueError(f"{name} must be >= 0, got {number!r}")
    return number


def integer(name: str, value: Any) -> int:
    """``value`` as an int."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    return int(value)


def at_least(name: str, value: Any, least: int) -> int:
    """``value`` as an int of ``least`` or more."""
    number = integer(name, value)
    if number < least:
        raise ValueError(f"{name} must be at least {least}, got {number}")
    return number


def steps(name: str, value: Any) -> int:
    """``value`` as a number of steps of gradient descent, 0 to ``MOST_STEPS``."""
    number = at_least(name, value, 0)
    if number > MOST_STEPS:
        raise ValueError(f"{name} must be at most 2**53 = {MOST_STEPS}, got {number}")
    return number


def choice(name: str, value: Any, choices: tuple[str, ...]) -> str:
    """``value``, one of the strings ``choices``."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be one of {choices}, got {value!r}")
    if value not in choices:
        raise ValueError(f"{name} must be one of {choices}, got {value!r}")
    return value


def one_or_more(name: str, value: Any, check: Callable[[str, Any], Any]) -> tuple[list[Any], bool]:
    """``value``, one number or a sequence, as a list of what ``check`` makes of each; and whether it was one number."""
    if isinstance(value, (str, bytes)):
        raise TypeError(f"{name} must be a number or a sequence of numbers, got {value!r}")
    if np.ndim(value) == 0:
        return [check(name, value.item() if isinstance(value, np.ndarray) else value)], True
    checked = [check(name, item) for item in value]
    if not checked:
        raise ValueError(f"{name} must not be empty")
    return checked, False


def instance(name: str, value: Any, kinds: tuple[type[Any], ...]) -> Any:
    """``value``, an object of one of the package's classes ``kinds``."""
    if not isinstance(value, kinds):
        wanted = " or ".join(f"ntkfast.{kind.__name__}" for kind in kinds)
        raise TypeError(f"{name} must be an {wanted}, got {value!r}")
    return value


def callback(name: str, value: Any) -> Any:
    """``value``, callable or None."""
    if value is not None and not callable(value):
        raise TypeError(f"{name} must be callable, got {value!r}")
    return value


def float_dtype(value: Any) -> np.dtype[Any]:
    """``value`` as float32 or float64: the argument ``dtype``."""
    try:
        dtype: np.dtype[Any] = np.dtype(value)
    except TypeError as error:
        raise TypeError(f"dtype must be 'float32' or 'float64', got {value!r}") from error
    if dtype not in (np.float32, np.float64) or value is None:
        raise ValueError(f"dtype must be 'float32' or 'float64', got {value!r}")
    return dtype


def channel_axis(name: str, shape: tuple[int, ...], value: Any, *, frames: bool = False) -> int | None:
    """The one rule of ``channel_axis``: without it an image is (H, W), with it it has three dimensions.

    Parameters
    ----------
    name : str
        The argument, for messages.
    shape : tuple of int
        The shape of the image.
    value : int or None
        The argument ``channel_axis``.
    frames : bool
        Whether the caller has an argument ``frame_axis`` that the message may offer.
    """
    if value is None:
        if len(shape) != 2:
            raise ValueError(_refused_dimensions(name, shape, frames))
        return None
    axis = integer("channel_axis", value)
    if len(shape) != 3:
        hint = ": pass frame_axis=0 too for a stack of images" * (frames and len(shape) == 4)
        raise ValueError(f"{name} must have 3 dimensions when channel_axis is given, got shape {shape}{hint}")
    if not -3 <= axis < 3:
        raise ValueError(f"channel_axis must lie between -3 and 2, got {axis}")
    return axis


def _forgotten_axis(shape: tuple[int, ...]) -> str:
    """Say what a caller who forgot the channel axis of three dimensions should pass."""
    few = [axis for axis in (2, 0, 1) if shape[axis] <= MOST_CHANNELS]
    return {
        0: "channel_axis=0 for an image (C, H, W)",
        1: "channel_axis=1 for an image (H, C, W)",
        2: "channel_axis=-1 for an image (H, W, C)",
    }[few[0] if few else 2]


def _refused_dimensions(name: str, shape: tuple[int, ...], frames: bool) -> str:
    """The message about an image of which nobody said where its channels are."""
    said = f"{name} has shape {shape}, {len(shape)} dimension{'s' * (len(shape) != 1)}: "
    if len(shape) == 3:
        return f"{said}pass {_forgotten_axis(shape)}" + ", or frame_axis=0 for a stack of gray images" * frames
    if len(shape) == 4 and frames:
        first = shape[1] <= MOST_CHANNELS < shape[3]
        layout = "channel_axis=1 for a stack of images (N, C" if first else "channel_axis=-1 for a stack of images (N"
        return f"{said}pass frame_axis=0 and {layout}, H, W{', C' * (not first)})"
    return f"{name} must have shape (H, W), or 3 dimensions and a channel_axis, got shape {shape}"


def generator(name: str, value: Any) -> np.random.Generator:
    """The argument ``rng`` as a generator of random numbers.

    An int gives the same numbers every time, None gives fresh ones, and a Generator goes on where it is (SPEC 7 of
    Scientific Python); so does what else :func:`numpy.random.default_rng` makes one of.
    """
    if value is None or isinstance(value, (np.random.Generator, np.random.BitGenerator, np.random.SeedSequence)):
        return np.random.default_rng(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer, None or a numpy.random.Generator, got {value!r}")
    return np.random.default_rng(at_least(name, value, 0))


def as_array(name: str, value: Any) -> np.ndarray:
    """Return ``value`` as an array of any dtype, without a copy if it is one; refuse one with values masked."""
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise TypeError(
            f"{name} must not be a masked array: fill what is masked, or see ntkfast.restore_ntk for inpainting"
        )
    try:
        return np.asarray(value)
    except ValueError as error:  # rows of unequal length
        raise ValueError(f"{name} must be a real numeric array: {error}") from error


def real_numbers(name: str, value: Any) -> np.ndarray:
    """``value`` as a real array that is not empty, without a copy if it is one."""
    array = as_array(name, value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} must be a real numeric array, got dtype {array.dtype}")
    if array.size == 0:
        raise ValueError(f"{name} must not be empty, got shape {array.shape}")
    return array


def real_array(name: str, value: Any) -> np.ndarray:
    """``value`` as a finite real array of float32 or float64."""
    array = real_numbers(name, value)
    if array.dtype.kind != "f" or array.dtype.itemsize not in (4, 8):
        array = array.astype(np.float64)
    if not np.isfinite(array).all():
        count = int(array.size - np.isfinite(array).sum())
        raise ValueError(f"{name} must be finite, got {count} NaN or infinite values")
    return array


def real_vectors(what: str, dtype: np.dtype[Any]) -> None:
    """Refuse to multiply ``what`` with anything but real numbers."""
    if dtype.kind not in "fiub":
        raise TypeError(f"{what} applies to real vectors, got dtype {dtype}")
