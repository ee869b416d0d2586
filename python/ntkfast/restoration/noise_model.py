"""Models of a picture's noise say what is known of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .. import _check

__all__ = ["NoiseModel", "as_noise"]


@dataclass(frozen=True, eq=False, repr=False)
class NoiseModel:
    """Noise of a known standard deviation, independent from pixel to pixel.

    Parameters
    ----------
    sigma : float or array_like of shape (C,) or (H, W), real
        Standard deviation in the image's units: one number, >= 0; or that of each channel, or of each pixel, all > 0.
    estimated : bool
        Whether it was estimated from the picture, and not given.

    Attributes
    ----------
    sigma : float or ndarray of float64, read-only
    estimated : bool

    Raises
    ------
    TypeError, ValueError
        If sigma is not real, is not finite, has more than two dimensions, or is out of range.

    See Also
    --------
    PoissonGaussian : noise that grows with the signal.
    estimate_noise : the model of a picture of which nothing is known.

    Examples
    --------
    >>> nf.NoiseModel(2.5)
    NoiseModel(sigma=2.5)
    >>> nf.NoiseModel([2.5, 2.0, 4.0])
    NoiseModel(sigma=[2.5, 2, 4], of the channels)
    """

    sigma: Any
    estimated: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", _sigma(self.sigma))
        object.__setattr__(self, "estimated", bool(self.estimated))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, NoiseModel) and self._values() == other._values()

    def __hash__(self) -> int:
        return hash(self._values())

    def _values(self) -> tuple[Any, ...]:
        return type(self), *((name, np.shape(v), np.asarray(v).tobytes()) for name, v in sorted(vars(self).items()))

    def __repr__(self) -> str:
        shown, shape = f"{self.sigma}", np.shape(self.sigma)
        if len(shape) == 1:
            shown = f"[{', '.join(f'{s:.4g}' for s in self.sigma)}], of the channels"
        if len(shape) == 2:
            shown = f"{self.sigma.min():.4g} to {self.sigma.max():.4g}, of {shape[0]} x {shape[1]} pixels"
        return f"{type(self).__name__}(sigma={shown}{', estimated' * self.estimated})"


def _sigma(value: Any) -> Any:
    """A level as a float, levels of channels or pixels as an array of float64 that nobody can change."""
    if isinstance(value, NoiseModel):
        raise TypeError(f"sigma must be numbers, got {value!r}: give it as noise")
    if getattr(value, "shape", None) == () and hasattr(value, "item"):  # any library's
        value = value.item()
    if np.ndim(value) == 0:
        return _check.not_negative("sigma", value)
    levels = np.array(_check.real_array("sigma", value), dtype=np.float64)
    if levels.ndim > 2:
        raise ValueError(f"sigma must be a number, or have shape (C,) or (H, W), got shape {levels.shape}")
    if not levels.min() > 0:
        what = "channel" if levels.ndim == 1 else "pixel"
        raise ValueError(f"sigma must be positive at every {what}, got {float(levels.min())!r}")
    levels.flags.writeable = False
    return levels


def as_noise(sigma: Any, noise: Any) -> NoiseModel | None:
    """The arguments ``sigma`` and ``noise``, of which one may be given."""
    if noise is None:
        return None if sigma is None else NoiseModel(sigma)
    if sigma is not None:
        raise ValueError(f"sigma and noise must not both be given, got sigma={sigma!r} and noise={noise!r}")
    if not isinstance(noise, NoiseModel):
        raise TypeError(f"noise must be an ntkfast.NoiseModel, such as PoissonGaussian, got {noise!r}")
    return noise
