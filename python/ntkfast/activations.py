"""All that the package knows of each activation stands in its class, and everything else walks :data:`ACTIVATIONS`.

A new activation is one class here, and its name in ``__init__.pyi``: the reference, networks of finite width, the
reader of PyTorch modules, the nodes for the engine, and the random networks of the tests find it by themselves.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from . import _check

if TYPE_CHECKING:
    import torch

Array = np.ndarray  # float64


class Described:
    """All layers share this: a ``repr`` that leaves out arguments at their default and shows paths as lists."""

    def __repr__(self) -> str:
        shown = []
        for f in fields(self):  # type: ignore[arg-type]
            value = getattr(self, f.name)
            if value != f.default:
                text = repr(list(value) if isinstance(value, tuple) else value)
                shown.append(f"{f.name}={text}" if f.kw_only else text)
        return f"{type(self).__name__}({', '.join(shown)})"


@dataclass(frozen=True)
class TorchFunction:
    """This says how PyTorch names an activation, as text: descriptions of networks need no PyTorch.

    Attributes
    ----------
    names : tuple of str
        Full names of its functions; the first is the one that finite networks call.  Their versions in place, and
        the methods of tensors, have the same last name, with or without an underscore.  Empty: PyTorch has none.
    module : str
        Name in ``torch.nn`` of its module, which finite networks then have; empty: it has none.
    arguments : tuple of (str, value)
        PyTorch's names and defaults of the activation's own arguments, in the order of its fields.
    fixed : tuple of (str, value)
        Further arguments, that have a closed form with this value alone, PyTorch's default.
    """

    names: tuple[str, ...] = ()
    module: str = ""
    arguments: tuple[tuple[str, Any], ...] = ()
    fixed: tuple[tuple[str, Any], ...] = ()


class Activation(Described, ABC):
    """An activation is a pointwise function f.  A subclass is a frozen dataclass, its fields being the arguments of f.

    Attributes
    ----------
    operation : str
        Its name in the engine's table of activations.
    in_torch : TorchFunction
        Its names in PyTorch; where it has none, the class has ``on_tensor``.
    """

    operation: ClassVar[str]
    in_torch: ClassVar[TorchFunction] = TorchFunction()

    def __init_subclass__(cls, *, family: bool = False) -> None:
        super().__init_subclass__()
        if not family:
            ACTIVATIONS.append(cls)

    def numbers(self) -> list[float]:
        """Return the arguments of the engine's operation."""
        return [float(getattr(self, f.name)) for f in fields(self)]  # type: ignore[arg-type]

    def is_odd(self) -> bool:
        """Tell whether f(-x) = -f(x), so that a mean of zero is kept."""
        return False

    @abstractmethod
    def function(self, x: Array) -> Array:
        """Return f of each number of an array."""

    @abstractmethod
    def derivative(self, x: Array) -> Array:
        """Return f' of each number of an array."""

    @abstractmethod
    def dual(self, s: Array, si: Array, sj: Array) -> tuple[Array, Array]:
        """Return the covariance of the outputs and of the slopes, for Gaussians (u, v) of mean zero and covariance S.

        Parameters
        ----------
        s : ndarray, shape (d, d), float64
            ``S_ij``.
        si, sj : ndarray, shapes (d, 1) and (1, d), float64
            Variances ``S_ii`` and ``S_jj``.

        Returns
        -------
        q, dq : ndarray, shape (d, d), float64
            ``Q = E[f(u) f(v)]`` and ``Q' = E[f'(u) f'(v)]``.
        """

    def on_tensor(self, h: torch.Tensor) -> torch.Tensor:
        """Return f of a PyTorch tensor by the tensor's own methods; only an f that PyTorch lacks needs this."""
        raise NotImplementedError(f"{type(self).__name__} needs a name of PyTorch's, or a formula for tensors")


# These are all activations, in the order of the classes below.
ACTIVATIONS: list[type[Activation]] = []


# --- Rectifiers ---------------------------------------------------------------------------------------------------


class Rectifier(Activation, family=True):
    """A rectifier is ``max(x, 0) + slope * min(x, 0)``: for the engine all of them are one operation with a slope."""

    operation = "rectifier"
    slope: float  # the slope of the negative half

    def numbers(self) -> list[float]:
        return [self.slope]

    def is_odd(self) -> bool:
        return self.slope == 1

    def function(self, x: Array) -> Array:
        return np.where(x > 0, x, self.slope * x)

    def derivative(self, x: Array) -> Array:
        return np.where(x > 0, 1.0, self.slope)

    def dual(self, s: Array, si: Array, sj: Array) -> tuple[Array, Array]:
        # The closed forms are, with p_i = sqrt(S(i,i)) and cos th = S(i,j) / (p_i p_j),
        # ReLU (Cho & Saul, 2009):  Q  = p_i p_j (sin th + (pi - th) cos th) / (2 pi),   Q' = (pi - th) / (2 pi)
        # slope a, as max(x, ax) = a x + (1-a) relu(x):  Q = a S + (1-a)^2 Q_relu,       Q' = a + (1-a)^2 Q'_relu
        # Where p = 0 (a patch of zeros) the row and the column are 0.
        a = self.slope
        pp = np.sqrt(si) * np.sqrt(sj)
        alive = pp > 0
        cos = np.clip(np.divide(s, pp, out=np.ones_like(s), where=alive), -1.0, 1.0)
        np.fill_diagonal(cos, 1.0)
        theta = np.arccos(cos)
        q_relu = pp * (np.sin(theta) + (np.pi - theta) * cos) / (2 * np.pi)
        dq_relu = (np.pi - theta) / (2 * np.pi)
        q = a * s + (1 - a) ** 2 * q_relu
        dq = a + (1 - a) ** 2 * dq_relu
        return np.where(alive, q, 0.0), np.where(alive, dq, 0.0)


@dataclass(frozen=True, repr=False)
class ReLU(Rectifier):
    """Apply ``max(x, 0)`` pointwise: this is a leaky ReLU whose ``slope`` is 0.

    Examples
    --------
    >>> nf.Network([nf.Conv(3), nf.ReLU(), nf.Conv(1)])
    Network([Conv(3), ReLU(), Conv(1)], padding='zeros')
    """

    slope = 0.0
    in_torch = TorchFunction(("torch.nn.functional.relu",), module="ReLU")


@dataclass(frozen=True, repr=False)
class LeakyReLU(Rectifier):
    """Apply ``max(x, 0) + slope * min(x, 0)`` pointwise; any finite slope will do.

    Parameters
    ----------
    slope : float
        Slope of the negative half, dimensionless.

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind or out of range.

    Examples
    --------
    >>> nf.Network([nf.Conv(3), nf.LeakyReLU(0.2), nf.Conv(1)])
    Network([Conv(3), LeakyReLU(0.2), Conv(1)], padding='zeros')
    """

    slope: float
    in_torch = TorchFunction(
        ("torch.nn.functional.leaky_relu",), module="LeakyReLU", arguments=(("negative_slope", 0.01),)
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "slope", _check.real("slope", self.slope))


@dataclass(frozen=True, repr=False)
class Abs(Rectifier):
    """Apply ``|x|`` pointwise: this is a leaky ReLU whose ``slope`` is -1.

    Examples
    --------
    >>> nf.Network([nf.Conv(3), nf.Abs(), nf.Conv(1)])
    Network([Conv(3), Abs(), Conv(1)], padding='zeros')
    """

    slope = -1.0
    in_torch = TorchFunction(("torch.abs", "torch.absolute"))


# --- Smooth activations -------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Erf(Activation):
    """Apply the error function ``erf(x) = 2/sqrt(pi) int_0^x exp(-t^2) dt``, the sigmoid that has closed forms.

    Examples
    --------
    >>> nf.Network([nf.Conv(3), nf.Erf(), nf.Conv(1)])
    Network([Conv(3), Erf(), Conv(1)], padding='zeros')
    """

    operation = "erf"
    in_torch = TorchFunction(("torch.erf",))

    def is_odd(self) -> bool:
        return True

    def function(self, x: Array) -> Array:
        return np.asarray(_special().erf(x))

    def derivative(self, x: Array) -> Array:
        return np.asarray(2 / np.sqrt(np.pi) * np.exp(-(x**2)))

    def dual(self, s: Array, si: Array, sj: Array) -> tuple[Array, Array]:
        # Williams, 1997, has  Q = 2/pi asin(2 S_ij / sqrt((1 + 2 S_ii)(1 + 2 S_jj))) = 2/pi atan(2 S_ij / sqrt D),
        #                      Q' = 4/pi / sqrt D,    D = (1 + 2 S_ii)(1 + 2 S_jj) - 4 S_ij^2
        root = np.sqrt(determinant(2 * s, 2 * si, 2 * sj))
        return 2 / np.pi * np.arctan(2 * s / root), 4 / np.pi / root


@dataclass(frozen=True, repr=False)
class GELU(Activation):
    """Apply ``x Phi(x)``, Phi the distribution function of N(0, 1): the exact form, not the one with tanh.

    Examples
    --------
    >>> nf.Network([nf.Conv(3), nf.GELU(), nf.Conv(1)])
    Network([Conv(3), GELU(), Conv(1)], padding='zeros')
    """

    operation = "gelu"
    in_torch = TorchFunction(("torch.nn.functional.gelu",), module="GELU", fixed=(("approximate", "none"),))

    def function(self, x: Array) -> Array:
        return np.asarray(x * _special().ndtr(x))

    def derivative(self, x: Array) -> Array:
        return np.asarray(_special().ndtr(x) + x * np.exp(-(x**2) / 2) / np.sqrt(2 * np.pi))

    def dual(self, s: Array, si: Array, sj: Array) -> tuple[Array, Array]:
        # Stein's lemma, E[u F(u, v)] = S_ii E[F_u] + S_ij E[F_v], takes the factors u and v off E[u v Phi(u) Phi(v)]
        # and leaves, with phi = Phi' and D = (1 + S_ii)(1 + S_jj) - S_ij^2,
        #     G = E[Phi(u) Phi(v)] = 1/4 + 1/(2 pi) atan(S_ij / sqrt D),    P = E[phi(u) phi(v)] = 1/(2 pi sqrt D)
        #     E[u phi(u) Phi(v)] = S_ij P / (1 + S_ii),    E[u v phi(u) phi(v)] = S_ij P / D
        # so that, with R = 1/(1 + S_ii) + 1/(1 + S_jj)  (Tsuchida et al., 2021, in another form),
        #     Q = S_ij G + P (S_ii S_jj - S_ij^2 + S_ij^2 R),    Q' = G + P S_ij (R + 1/D)
        det = determinant(s, si, sj)
        root = np.sqrt(det)
        g = 0.25 + np.arctan(s / root) / (2 * np.pi)
        p = 1 / (2 * np.pi * root)
        r = 1 / (1 + si) + 1 / (1 + sj)
        return s * g + p * (np.maximum(si * sj - s * s, 0.0) + s * s * r), g + p * s * (r + 1 / det)


@dataclass(frozen=True, repr=False)
class Sin(Activation):
    """Apply ``sin(x)`` pointwise, x in radians.

    Examples
    --------
    >>> nf.Network([nf.Conv(3), nf.Sin(), nf.Conv(1)])
    Network([Conv(3), Sin(), Conv(1)], padding='zeros')
    """

    operation = "sin"
    in_torch = TorchFunction(("torch.sin",))

    def is_odd(self) -> bool:
        return True

    def function(self, x: Array) -> Array:
        return np.asarray(np.sin(x))

    def derivative(self, x: Array) -> Array:
        return np.asarray(np.cos(x))

    def dual(self, s: Array, si: Array, sj: Array) -> tuple[Array, Array]:
        return sine_and_cosine(s, si, sj)


@dataclass(frozen=True, repr=False)
class Cos(Activation):
    """Apply ``cos(x)`` pointwise, x in radians.

    Examples
    --------
    >>> nf.Network([nf.Conv(3), nf.Cos(), nf.Conv(1)])
    Network([Conv(3), Cos(), Conv(1)], padding='zeros')
    """

    operation = "cos"
    in_torch = TorchFunction(("torch.cos",))

    def function(self, x: Array) -> Array:
        return np.asarray(np.cos(x))

    def derivative(self, x: Array) -> Array:
        return np.asarray(-np.sin(x))

    def dual(self, s: Array, si: Array, sj: Array) -> tuple[Array, Array]:
        sine, cosine = sine_and_cosine(s, si, sj)
        return cosine, sine


@dataclass(frozen=True, repr=False)
class Gaussian(Activation):
    """Apply ``exp(-x^2/2)`` pointwise: a bump of height 1 at 0 and of width 1, in units of x.

    Examples
    --------
    >>> nf.Network([nf.Conv(3), nf.Gaussian(), nf.Conv(1)])
    Network([Conv(3), Gaussian(), Conv(1)], padding='zeros')
    """

    operation = "gaussian"

    def function(self, x: Array) -> Array:
        return np.asarray(np.exp(-(x**2) / 2))

    def derivative(self, x: Array) -> Array:
        return np.asarray(-x * np.exp(-(x**2) / 2))

    def dual(self, s: Array, si: Array, sj: Array) -> tuple[Array, Array]:
        # The Gaussian integral over the 2 x 2 matrix S of a pair is E[exp(-(u^2 + v^2)/2)] = det(1 + S)^(-1/2), hence
        #     Q = 1 / sqrt D,    Q' = dQ/dS_ij = S_ij / D^(3/2),    D = (1 + S_ii)(1 + S_jj) - S_ij^2
        det = determinant(s, si, sj)
        root = np.sqrt(det)
        return 1 / root, s / (det * root)

    def on_tensor(self, h: torch.Tensor) -> torch.Tensor:
        return (-h.square() / 2).exp()


# --- What several of them need ------------------------------------------------------------------------------------


def _special() -> Any:
    """Return SciPy's special functions, which no dual needs: they take longer to import than all of this package."""
    import scipy.special

    return scipy.special


def determinant(s: Array, si: Array, sj: Array) -> Array:
    """Return (1 + S_ii)(1 + S_jj) - S_ij^2, at least 1 in spite of rounding: S_ii S_jj >= S_ij^2."""
    return np.asarray(1 + si + sj + np.maximum(si * sj - s * s, 0.0))


def sine_and_cosine(s: Array, si: Array, sj: Array) -> tuple[Array, Array]:
    """Return the means of sin u sin v and of cos u cos v."""
    # The means are  E[sin u sin v] = exp(-(S_ii + S_jj)/2) sinh S_ij,  E[cos u cos v] = exp(-(S_ii + S_jj)/2) cosh S_ij
    # with sinh |x| = exp(|x|) (1 - exp(-2|x|)) / 2, and cosh likewise, since exp(|x|) alone overflows.
    size = np.abs(s)
    decay = np.exp(size - (si + sj) / 2) / 2
    return -np.sign(s) * decay * np.expm1(-2 * size), decay * (1 + np.exp(-2 * size))
