"""The tangent kernel of a finite network at given weights, by reverse and forward products with its Jacobian.

With the output z(q) of the network on an image, d numbers, and its trained parameters q,

    Theta_hat = J J^T,        J = dz/dq,        Theta_hat v = J (J^T v)

J^T v is one reverse pass, J u one forward pass (Baydin et al., JMLR 18, 2018), and J is never formed.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import numpy as np
import torch
from scipy.sparse.linalg import LinearOperator
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from .. import _check
from ..engine.memory import Budget, require_memory
from ..images import as_planes

__all__ = ["EmpiricalNTK", "empirical_ntk"]

# PyTorch has names of its own for the types that NumPy and the filters know.
DTYPES: dict[torch.dtype, np.dtype[Any]] = {torch.float32: np.dtype(np.float32), torch.float64: np.dtype(np.float64)}

# Numbers that one batch of reverse passes has at a time: of the rows of J, or of the features they pass through.
BATCH_NUMBERS = 2**23

Weights = dict[str, torch.Tensor]


class EmpiricalNTK(LinearOperator):  # type: ignore[misc]
    """Theta_hat = J J^T of a finite network, symmetric and positive semi-definite; made by :func:`empirical_ntk`.

    A ``scipy.sparse.linalg.LinearOperator`` of shape (d, d), d = H*W*C_out; channel c of pixel (row, col) has the index
    ``(row*W + col)*C_out + c``.  :func:`ntkfast.gradient_descent` and the other filters take it as their kernel; the
    target may then have the shape :attr:`image_shape`.

    Parameters
    ----------
    module : torch.nn.Module
        Maps (1, C, H, W) to (1, C_out, H, W), with parameters of float32 or float64.
    x : array_like, shape (H, W), or with a channel axis, real
        The network's input; cast to the type of the parameters.
    channel_axis : int, optional
        Axis of the channels of x, which then has 3 dimensions; None if it is (H, W).

    Attributes
    ----------
    image_shape : tuple of int
        (H, W) of one output channel, else (H, W, C_out).
    lambda_max : float or None
        Largest eigenvalue; None until a filter has needed it.

    Raises
    ------
    TypeError, ValueError
        If ``module`` is no torch module with parameters of one of these types, or ``x`` no image that is finite in
        their type; if the module does not take x, or its output has another shape or is not finite; if the output has
        no one Jacobian, as it is random or the module changes its state (see Notes).

    Notes
    -----
    It has a copy of the weights and buffers: training the module afterwards does not change it.  Parameters with
    ``requires_grad=False`` are constants.

    Dropout and RReLU in training mode are random, and normalisations that keep running statistics change them: call
    ``module.eval()`` first.  Modules without such layers have the same kernel in either mode.

    It can be pickled where its module can.

    References
    ----------
    Jacot, Gabriel, Hongler, NeurIPS 2018, has the kernel; Baydin, Pearlmutter, Radul, Siskind, JMLR 18, 2018, the two
    products with the Jacobian.

    Examples
    --------
    >>> import numpy as np
    >>> import ntkfast as nf
    >>> module = nf.finite.to_torch(nf.vanilla_cnn(depth=1, kernel_size=3), width=8, in_channels=1)
    >>> K = nf.finite.EmpiricalNTK(module, np.random.default_rng(0).standard_normal((5, 6)))
    >>> K.shape, K.image_shape
    ((30, 30), (5, 6))
    >>> z = nf.gradient_descent(K, np.ones((5, 6)), steps=10)
    >>> z.shape, K.lambda_max > 0
    ((5, 6), True)
    """

    def __init__(self, module: torch.nn.Module, x: Any, *, channel_axis: int | None = None) -> None:
        self._x = to_tensor("x", x, channel_axis, parameter_like(module))
        _refuse_training_mode(module)
        self._module = module
        self._constants: Weights = {name: b.detach().clone() for name, b in module.named_buffers()}
        self._weights: Weights = {}
        for name, p in module.named_parameters():
            (self._weights if p.requires_grad else self._constants)[name] = p.detach().clone()
        z = self._first_output()
        channels, height, width = z.shape[1:]
        self._features: int | None = None  # numbers of one reverse pass, counted when they are first wanted
        self.image_shape = (height, width) if channels == 1 else (height, width, channels)
        self.lambda_max: float | None = None
        super().__init__(DTYPES[self._x.dtype], (z.numel(), z.numel()))

    def _first_output(self) -> torch.Tensor:
        """z of shape (1, C_out, H, W), or an error naming the module."""

        def call(x: torch.Tensor) -> Any:
            return torch.func.functional_call(self._module, {**self._constants, **self._weights}, (x,))

        with torch.no_grad():
            z = first_output(call, self._x)
            _refuse_another_output(z, call(self._x.clone()))
        return z

    def _output(self, weights: Weights) -> torch.Tensor:
        """z as a vector, the channels of a pixel together."""
        x = self._x.clone()  # a first layer that works in place writes over it
        z: torch.Tensor = torch.func.functional_call(self._module, {**self._constants, **weights}, (x,))
        return z.permute(0, 2, 3, 1).reshape(-1)

    def _pullback(self) -> Callable[[torch.Tensor], tuple[Weights]]:
        """v -> J^T v, by reverse passes through one evaluation of the network."""
        pullback: Callable[[torch.Tensor], tuple[Weights]] = torch.func.vjp(self._output, self._weights)[1]
        return pullback

    def _matmat(self, V: np.ndarray) -> np.ndarray:
        if V.dtype.kind == "c":
            return self._matmat(V.real) + 1j * self._matmat(V.imag)
        _check.real_vectors("the operator", V.dtype)
        out = np.zeros(V.shape, self.dtype)
        if not self._weights:
            return out
        _prepare_forward_mode()
        pullback = self._pullback()
        for n, v in enumerate(np.ascontiguousarray(V.T, dtype=self.dtype)):
            (u,) = pullback(torch.from_numpy(v).to(self._x.device))
            out[:, n] = torch.func.jvp(self._output, (self._weights,), (u,))[1].cpu().numpy()
        return out

    def _matvec(self, v: np.ndarray) -> np.ndarray:
        return self._matmat(v.reshape(-1, 1))

    def _adjoint(self) -> EmpiricalNTK:
        return self  # symmetric

    _transpose = _adjoint

    def _rows(self) -> Iterator[tuple[slice, torch.Tensor]]:
        """J, some rows at a time, the parameters one after the other: reverse passes from unit vectors, in batches."""
        d, batch, pullback = self.shape[0], self._batch(), self._pullback()
        for start in range(0, d, batch):
            rows = slice(start, min(start + batch, d))
            units = torch.zeros(rows.stop - start, d, dtype=self._x.dtype, device=self._x.device)
            units[:, rows].fill_diagonal_(1.0)
            (blocks,) = torch.func.vmap(pullback)(units)
            yield rows, torch.cat([block.reshape(len(units), -1) for block in blocks.values()], dim=1)

    def _parameters(self) -> int:
        return sum(p.numel() for p in self._weights.values())

    def _batch(self) -> int:
        """Rows in one batch: each takes a reverse pass of its own, through all features."""
        if self._features is None:
            self._features = self._count_features()
        return max(1, min(int(self.shape[0]), BATCH_NUMBERS // max(self._parameters(), self._features)))

    def _count_features(self) -> int:
        """Numbers that autograd keeps of one evaluation for the reverse pass."""
        count = 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal count
            count += tensor.numel()
            return tensor

        weights = {name: weight.detach().requires_grad_() for name, weight in self._weights.items()}
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            self._output(weights)
        return count

    def dense(self) -> np.ndarray:
        """The whole matrix, from the whole Jacobian.

        Returns
        -------
        ndarray, shape (d, d)
            Of the operator's dtype, in squared units of the network's input.

        Raises
        ------
        MemoryError
            If J, d numbers for every trained parameter, does not fit.

        Examples
        --------
        >>> import numpy as np
        >>> import ntkfast as nf
        >>> module = nf.finite.to_torch(nf.vanilla_cnn(depth=1, kernel_size=3), width=8, in_channels=1)
        >>> K = nf.finite.empirical_ntk(module, np.random.default_rng(0).standard_normal((3, 4)))
        >>> bool(np.allclose(K.dense(), K @ np.eye(12)))
        True
        """
        if not self._weights:
            return np.zeros(self.shape, self.dtype)
        d, parameters = self.shape[0], self._parameters()
        # J and the matrix; of one batch its blocks and these side by side.
        needed = self.dtype.itemsize * (d * (parameters + d) + 2 * self._batch() * parameters)
        hint = "multiply with the operator, which never forms the Jacobian"
        device = self._x.device
        if device.type == "cuda":  # pragma: no cover - no GPU where tests run
            free = torch.cuda.mem_get_info(device)[0]
            Budget(free, f" on {device}").require("the Jacobian", hint, needed)
        else:
            require_memory("the Jacobian", needed, hint)
        jacobian = torch.empty(d, parameters, dtype=self._x.dtype, device=device)
        for rows, block in self._rows():
            jacobian[rows] = block
        return (jacobian @ jacobian.T).cpu().numpy()

    def diagonal(self) -> np.ndarray:
        """The diagonal: the squared norms of the rows of J.

        Returns
        -------
        ndarray, shape (d,)
            Of the operator's dtype.

        Examples
        --------
        >>> import numpy as np
        >>> import ntkfast as nf
        >>> module = nf.finite.to_torch(nf.vanilla_cnn(depth=1, kernel_size=3), width=8, in_channels=1)
        >>> K = nf.finite.empirical_ntk(module, np.random.default_rng(0).standard_normal((3, 4)))
        >>> bool(np.allclose(K.diagonal(), np.diag(K.dense())))
        True
        """
        out = np.zeros(self.shape[0], self.dtype)
        if self._weights:
            for rows, block in self._rows():
                out[rows] = block.square().sum(dim=1).cpu().numpy()
        return out


@cache
def _prepare_forward_mode() -> None:
    """torch loads what its first forward pass needs then, with a warning about itself that is not the user's."""
    with warnings.catch_warnings():
        # A FutureWarning or a DeprecationWarning, by the version of PyTorch.
        warnings.filterwarnings("ignore", message=".*torch.jit.script")
        torch.func.jvp(torch.sin, (torch.zeros(1),), (torch.zeros(1),))


def empirical_ntk(module: torch.nn.Module, x: Any, *, channel_axis: int | None = None) -> EmpiricalNTK:
    """Tangent kernel J J^T of a finite network at its present weights, as an operator.

    Entry (i, j) is the sum over the parameters q with ``requires_grad`` of d z_i/d q * d z_j/d q, where z is the output
    and i = (row*W + col)*C_out + channel.  ``empirical_ntk(module, x).dense()`` is the matrix.

    Parameters
    ----------
    module : torch.nn.Module
        Maps (1, C, H, W) to (1, C_out, H, W), with parameters of float32 or float64; on any device.
    x : array_like, shape (H, W), or with a channel axis, real
        The network's input; cast to the type of the module's parameters.
    channel_axis : int, optional
        Axis of the channels of x, which then has 3 dimensions; None if it is (H, W).

    Returns
    -------
    EmpiricalNTK
        With a copy of the weights.

    Raises
    ------
    TypeError, ValueError
        As :class:`EmpiricalNTK`.

    Examples
    --------
    As the width grows, it tends to the kernel of the infinitely wide network:

    >>> import numpy as np
    >>> import ntkfast as nf
    >>> network, x = nf.vanilla_cnn(depth=1, kernel_size=3), np.random.default_rng(0).standard_normal((4, 5, 3))
    >>> limit = nf.NTK(network, x, channel_axis=-1).dense()
    >>> for width in (10, 1000):
    ...     module = nf.finite.to_torch(network, width, in_channels=3)
    ...     own = nf.finite.empirical_ntk(module, x, channel_axis=-1).dense()
    ...     print(bool(np.linalg.norm(own - limit) < 0.1 * np.linalg.norm(limit)))
    False
    True
    """
    return EmpiricalNTK(module, x, channel_axis=channel_axis)


def parameter_like(module: Any) -> torch.Tensor:
    """The first parameter of a module, whose type and device all tensors take; or an error naming the argument."""
    if not isinstance(module, torch.nn.Module):
        raise TypeError(f"module must be a torch.nn.Module, got {module!r}")
    like = next(module.parameters(), None)
    if like is None:
        raise ValueError(f"module must have parameters, got {module!r}")
    if like.dtype not in DTYPES:
        raise TypeError(f"module must have parameters of float32 or float64, got {like.dtype}")
    return like.detach()


def to_tensor(name: str, image: Any, channel_axis: int | None, like: torch.Tensor) -> torch.Tensor:
    """An image as a (1, C, H, W) tensor of the type and on the device of ``like``."""
    return torch.from_numpy(cast(name, as_planes(name, image, channel_axis), like.dtype)).to(like.device)


def planes_of(tensor: torch.Tensor) -> np.ndarray:
    """A (1, C, H, W) tensor as an image (C, H, W) of NumPy."""
    return tensor[0].cpu().numpy()


def cast(name: str, array: np.ndarray, dtype: torch.dtype) -> np.ndarray:
    """A copy of a finite array in the type ``dtype`` of a module, or an error where that overflows.

    A copy in C order: torch takes no negative strides, and must not see what the caller does to the array later.
    """
    with np.errstate(over="ignore"):
        copy = array.astype(DTYPES[dtype], order="C")
    if not np.isfinite(copy).all():
        raise ValueError(
            f"{name} must be finite in {DTYPES[dtype]}, the type of the module's parameters, got values up to "
            f"{np.abs(array).max():.3g}"
        )
    return copy


def first_output(call: Callable[[torch.Tensor], Any], x: torch.Tensor) -> torch.Tensor:
    """The finite output of shape (1, C_out, H, W) on the (1, C, H, W) input x, or an error naming the module."""
    try:
        z = call(x.clone())  # a first layer that works in place writes over it
    except torch.cuda.OutOfMemoryError:  # a RuntimeError too, but says what is wrong
        raise
    except (RuntimeError, ValueError, TypeError, IndexError) as error:  # torch raises these where shapes do not fit
        raise ValueError(
            f"module must take x of shape (1, C, H, W), got an error on {tuple(x.shape)}: {error}"
        ) from error
    if not isinstance(z, torch.Tensor):
        raise TypeError(f"module must return a tensor, got {type(z).__name__}")
    height, width = x.shape[2:]
    if z.ndim != 4 or z.shape[0] != 1 or z.shape[2:] != x.shape[2:]:
        raise ValueError(f"module must map to shape (1, C_out, {height}, {width}), got {tuple(z.shape)}")
    if not bool(z.isfinite().all()):
        count = z.numel() - int(z.isfinite().sum())
        raise ValueError(f"module must have a finite output on x at the start, got {count} NaN or infinite values")
    return z


def _refuse_training_mode(module: torch.nn.Module) -> None:
    """Refuse layers whose output is random, or that change their buffers, in the mode they are in."""
    for name, part in module.named_modules():
        if not part.training:
            continue
        if isinstance(part, torch.nn.RReLU) or (isinstance(part, _DropoutNd) and part.p > 0):
            what = "is random"
        elif isinstance(part, _NormBase) and part.track_running_stats:
            what = "changes its running statistics"
        else:
            continue
        place = f"its submodule {name!r}, " if name else ""
        raise ValueError(
            f"module must have one Jacobian, but {place}{part!r}, {what} in training mode: call module.eval() first"
        )


def _refuse_another_output(z: torch.Tensor, again: torch.Tensor) -> None:
    """Refuse a module with two outputs on one input: random, or changing its state, in a way that no layer's type says.

    On a GPU the same sum may come in another order, so they may differ by roundings.
    """
    difference, largest = float((again - z).abs().max()), float(z.abs().max())
    if not difference <= math.sqrt(torch.finfo(z.dtype).eps) * largest:
        raise ValueError(
            f"module must have the same output each time, got two on x that differ by up to {difference:.3g}: call "
            "module.eval() first, or remove what is random or changes its state"
        )
