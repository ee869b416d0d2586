"""Checks of arguments: each returns the value in its own type, or raises an error naming the argument and the value."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = [
    "at_least",
    "callback",
    "choice",
    "float_dtype",
    "integer",
    "not_negative",
    "one_or_more",
    "positive",
    "real",
    "real_array",
    "real_vectors",
    "steps",
]

# Larger integers are not all numbers of double precision, in which the powers of gradient descent are computed, and the
# grids of steps that trainings record.
MOST_STEPS = 2**53


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


def real_numbers(name: str, value: Any) -> np.ndarray:
    """``value`` as a real array that is not empty, without a copy if it is one."""
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise TypeError(
            f"{name} must not be a masked array: fill what is masked, or see ntkfast.restore for inpainting"
        )
    try:
        array = np.asarray(value)
    except ValueError as error:  # rows of unequal length
        raise ValueError(f"{name} must be a real numeric array: {error}") from error
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
