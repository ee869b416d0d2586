"""Training of a finite network on one image, with what the closed form says about it recorded on the way.

The loss is L = 1/2 sum (z - y)^2 over pixels and channels.  With the trained parameters q, J = dz/dq and
Theta_hat = J J^T, a step of gradient descent of size eta moves the output by

    z_{t+1} = z_t - eta J J^T (z_t - y) + O(eta^2) = z_t + eta Theta_hat_t (y - z_t) + O(eta^2)

which is the iteration of :func:`ntkfast.gradient_descent` where Theta_hat_t stays near Theta: as the width grows, and
exactly, at any width, for a network that is linear in its parameters.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .. import _check
from ..images import as_values, as_vectors
from .empirical import DTYPES, cast, empirical_ntk, first_output, parameter_like, to_tensor
from .modules import NTKConv2d

__all__ = ["Training", "train"]

OPTIMIZERS = ("gd", "momentum", "adam")

# Of the heavy ball.
MOMENTUM = 0.9

# Of Adam: Kingma & Ba, ICLR 2015.
BETAS = (0.9, 0.999)
EPSILON = 1e-8

# Steps between two looks at whether the output is still finite: a look costs little, but on a GPU it waits.
CHECK_EVERY = 32

# Points of the default grid of recorded steps, besides 0.
GRID_POINTS = 24


@dataclass(frozen=True)
class Training:
    """What :func:`train` saw at the recorded steps.

    Attributes
    ----------
    steps : tuple of int
        The n recorded steps, ascending.
    outputs : ndarray, shape (n, H, W) or (n, H, W, C_out)
        z at each of them, in the shape of the target and the type of the module; centred if asked for.
    loss : ndarray, shape (n,)
        1/2 sum (z - y)^2.
    psnr : ndarray, shape (n,), or None
        10 log10(data_range^2 / mean (z - clean)^2) in dB; None without ``clean``.
    weight_l2, weight_linf : dict of str to float
        Frobenius norm and largest magnitude of each convolution's weights at the start, by the name that
        ``named_modules`` has for it.  Here and below, weights are those of the standard parametrisation: of an
        NTKConv2d ``sqrt(w/(c k^2)) W``, of a Conv2d of torch its own.
    weight_change_l2, weight_change_linf : dict of str to ndarray of shape (n,)
        The same two norms of the change against the start.
    kernel_action : ndarray, shape (n, d_out, k), or None
        The empirical tangent kernel at each of the steps times ``probe``; None without one.
    seconds : float
        Wall-clock time of the training steps, without the records.
    """

    steps: tuple[int, ...]
    outputs: np.ndarray
    loss: np.ndarray
    psnr: np.ndarray | None
    weight_l2: dict[str, float]
    weight_linf: dict[str, float]
    weight_change_l2: dict[str, np.ndarray]
    weight_change_linf: dict[str, np.ndarray]
    kernel_action: np.ndarray | None
    seconds: float


def train(
    module: torch.nn.Module,
    x: Any,
    y: Any,
    *,
    optimizer: str = "gd",
    steps: int,
    learning_rate: float,
    record: Iterable[int] | None = None,
    centred: bool = True,
    probe: Any = None,
    clean: Any = None,
    data_range: float | None = None,
    progress: Callable[[float], None] | None = None,
) -> Training:
    """Train a network on one image, in place, and record how.

    Parameters
    ----------
    module : torch.nn.Module
        Maps (1, C, H, W) to (1, C_out, H, W), with parameters of float32 or float64, on any device; those with
        ``requires_grad`` are trained.
    x : array_like, shape (H, W) or (H, W, C), real
        The network's input.
    y : array_like, shape (H, W) or (H, W, C_out), real
        The target.  Both are cast to the type of the parameters.
    optimizer : {"gd", "momentum", "adam"}
        - "gd": q <- q - learning_rate * dL/dq.
        - "momentum": heavy ball, v <- 0.9 v + dL/dq, q <- q - learning_rate * v.
        - "adam": Adam with the betas 0.9 and 0.999 on the *effective* weights, those of the standard parametrisation.
    steps : int
        Number of steps, at least 0 and at most 2**53.
    learning_rate : float
        Positive.  For "gd" and "momentum" that of :func:`ntkfast.gradient_descent`, in units of one over the kernel's:
        with "gd" it must stay below 2/lambda_max of the tangent kernel.  For "adam" each effective weight moves by
        about learning_rate/c a step, c being the largest number of input channels of the module's NTKConv2d, its width;
        in a module without NTKConv2d by learning_rate itself.
    record : iterable of int, optional
        Steps to record, each between 0 and ``steps``; default a geometric grid with 0 and ``steps``.
    centred : bool
        Whether z_t is f_t(x) - f_0(x), the network's output less what it was at the start of this training, so that
        z_0 = 0 as in the closed form; else z_t = f_t(x).
    probe : array_like, shape (d_out,) or (d_out, k), real, optional
        Vectors that the empirical tangent kernel is to be applied to, d_out = H*W*C_out, channels of a pixel together;
        with them the module must be one that :func:`empirical_ntk` takes: no Dropout or BatchNorm in training mode.
    clean : array_like, shape of y, real, optional
        What the PSNR compares with; less the same mean as y, where that was subtracted.
    data_range : float, optional
        Positive; largest minus smallest possible value of ``clean``.  Required with it.
    progress : callable, optional
        Called with the fraction of the steps done.  What it raises stops the training.

    Returns
    -------
    Training

    Raises
    ------
    TypeError, ValueError
        If an argument is of the wrong kind, shape or out of range, not finite in the type of the parameters, or the
        module's output is not finite at the start; the message names it.
    RuntimeError
        If the training diverges: the output is no longer finite, at a recorded step or after the last one.

    Notes
    -----
    The gradients of the trained parameters (``grad``) are None afterwards, also if the training is stopped or diverges.

    References
    ----------
    Tachella, Tang, Davies, CVPR 2021: gradient descent follows the tangent kernel, Adam does not.
    """
    like = parameter_like(module)
    x_tensor = to_tensor("x", x, like)
    target = to_tensor("y", y, like)
    steps = _check.steps("steps", steps)
    recorded = _recorded(record, steps)
    _check.callback("progress", progress)
    update = _optimizer(
        module, _check.choice("optimizer", optimizer, OPTIMIZERS), _check.positive("learning_rate", learning_rate)
    )
    recorder = _Recorder(module, x, y, like.dtype, clean, data_range, probe)

    due, z_start = set(recorded), torch.zeros_like(target)
    start, recording = time.perf_counter(), 0.0
    try:
        for step in range(steps + 1):
            with torch.set_grad_enabled(step < steps):  # after the last step the output is only looked at
                # A copy: a first layer that works in place writes over it.
                f = module(x_tensor.clone()) if step else first_output(module, x_tensor)
            if step == 0:
                if f.shape != target.shape:
                    raise ValueError(
                        f"y must have the shape of the module's output, ({f.shape[2]}, {f.shape[3]}) with {f.shape[1]} "
                        f"channels, got shape {np.shape(y)}"
                    )
                if centred:
                    z_start = f.detach()
            z = f.detach() - z_start
            if (step in due or step == steps or step % CHECK_EVERY == 0) and not bool(z.isfinite().all()):
                raise RuntimeError(
                    f"training diverged: the output is not finite at step {step}; learning_rate must be smaller than "
                    f"{learning_rate!r}"
                )
            if step in due:
                before = time.perf_counter()
                recorder.record(z)
                recording += time.perf_counter() - before
            if step == steps:
                break
            update.zero_grad()
            f.backward(z - target)  # dL/df = dL/dz
            update.step()
            if progress is not None:
                progress((step + 1) / steps)
    finally:
        update.zero_grad()  # also after what progress has raised, and after divergence
    return recorder.training(recorded, time.perf_counter() - start - recording)


class _Recorder:
    """What is looked at in each recorded step."""

    def __init__(
        self,
        module: torch.nn.Module,
        x: Any,
        y: Any,
        dtype: torch.dtype,
        clean: Any,
        data_range: float | None,
        probe: Any,
    ) -> None:
        self.module, self.x = module, x
        self.y = np.asarray(y).astype(DTYPES[dtype]).astype(np.float64)  # as the network is trained on it
        self.clean, self.data_range = _clean(clean, data_range, self.y.shape)
        self.probe = _probe(probe, self.y.size, dtype)
        if self.probe is not None:
            empirical_ntk(module, x)  # refuses before any step what has no kernel
        self.outputs: list[np.ndarray] = []
        self.actions: list[np.ndarray] = []
        self.changes: list[dict[str, tuple[float, float]]] = []
        self.start = {name: weight.detach().clone() for name, weight, _ in _convolutions(module)}
        self.start_norms = {name: _norms(scale * weight) for name, weight, scale in _convolutions(module)}

    def record(self, z: torch.Tensor) -> None:
        self.outputs.append(z[0].permute(1, 2, 0).reshape(self.y.shape).cpu().numpy())
        self.changes.append(
            {name: _norms(scale * (weight - self.start[name])) for name, weight, scale in _convolutions(self.module)}
        )
        if self.probe is not None:
            self.actions.append(empirical_ntk(self.module, self.x).matmat(self.probe))

    def training(self, steps: Sequence[int], seconds: float) -> Training:
        outputs = np.array(self.outputs)
        over_pixels = tuple(range(1, outputs.ndim))
        psnr = None
        if self.clean is not None:
            error = ((outputs.astype(np.float64) - self.clean) ** 2).mean(axis=over_pixels)
            with np.errstate(divide="ignore"):  # no error at all: infinite
                psnr = 10.0 * np.log10(self.data_range**2 / error)
        l2, linf = (
            {name: np.array([change[name][norm] for change in self.changes]) for name in self.start} for norm in (0, 1)
        )
        return Training(
            steps=tuple(steps),
            outputs=outputs,
            loss=0.5 * ((outputs.astype(np.float64) - self.y) ** 2).sum(axis=over_pixels),
            psnr=psnr,
            weight_l2={name: norms[0] for name, norms in self.start_norms.items()},
            weight_linf={name: norms[1] for name, norms in self.start_norms.items()},
            weight_change_l2=l2,
            weight_change_linf=linf,
            kernel_action=None if self.probe is None else np.array(self.actions),
            seconds=seconds,
        )


def _recorded(record: Iterable[int] | None, steps: int) -> tuple[int, ...]:
    """The steps to record, ascending."""
    if record is None:
        grid = np.geomspace(1, steps, GRID_POINTS).round().astype(int).tolist() if steps else []
        return tuple(sorted({0, *grid}))
    if isinstance(record, (str, bytes)) or not isinstance(record, Iterable):
        raise TypeError(f"record must be a sequence of steps, got {record!r}")
    numbers = tuple(sorted({_check.integer("record", step) for step in record}))
    if not numbers:
        raise ValueError("record must have at least one step, got none")
    if numbers[0] < 0 or numbers[-1] > steps:
        raise ValueError(f"record must lie between 0 and steps = {steps}, got {numbers[0]} to {numbers[-1]}")
    return numbers


def _optimizer(module: torch.nn.Module, optimizer: str, learning_rate: float) -> torch.optim.Optimizer:
    """Of the trained parameters, or an error naming the module."""
    trained = [p for p in module.parameters() if p.requires_grad]
    if not trained:
        raise ValueError("module must have parameters with requires_grad=True to be trained, got none")
    if optimizer != "adam":
        return torch.optim.SGD(trained, learning_rate, momentum=MOMENTUM if optimizer == "momentum" else 0.0)

    # Adam moves E = s W by r m_E / (sqrt(v_E) + eps), where m and v are means of dL/dE and of its square.  As
    # dL/dW = s dL/dE, Adam on W with the rate r/s and s eps moves W by r/s m_E / (sqrt(v_E) + eps): the same step of E.
    convolutions = [m for m in module.modules() if isinstance(m, NTKConv2d)]
    scales: dict[Any, float] = {}
    for conv in convolutions:
        scales |= {conv.weight: conv.weight_scale, conv.bias: conv.bias_scale}
    rate = learning_rate / max((conv.in_channels for conv in convolutions), default=1)
    groups: dict[float, list[torch.nn.Parameter]] = {}
    for p in trained:
        groups.setdefault(scales.get(p, 1.0), []).append(p)
    options = [{"params": group, "lr": rate / s, "eps": s * EPSILON} for s, group in groups.items()]
    return torch.optim.Adam(options, betas=BETAS)


def _convolutions(module: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor, float]]:
    """Name, weights and factor of each convolution; the factor times the weights are the effective weights."""
    for name, part in module.named_modules():
        if isinstance(part, (NTKConv2d, torch.nn.Conv2d)):
            yield name, part.weight.detach(), part.weight_scale if isinstance(part, NTKConv2d) else 1.0


def _norms(weight: torch.Tensor) -> tuple[float, float]:
    """Frobenius norm and largest magnitude."""
    return float(torch.linalg.vector_norm(weight, dtype=torch.float64)), float(weight.abs().max())


def _clean(clean: Any, data_range: float | None, shape: tuple[int, ...]) -> tuple[np.ndarray | None, float]:
    """``clean`` in float64 and the range of its values; None and 0 without it."""
    if clean is None:
        if data_range is not None:
            raise ValueError(f"data_range must come with clean, got {data_range!r} alone")
        return None, 0.0
    if data_range is None:
        raise ValueError("data_range must be given with clean: the largest minus the smallest possible value")
    array = as_values("clean", clean, shape, f"clean must have the shape of y, {shape}, got")
    return array, _check.positive("data_range", data_range)


def _probe(probe: Any, d: int, dtype: torch.dtype) -> np.ndarray | None:
    """``probe`` as (d, k), of the type of the module."""
    return None if probe is None else cast("probe", as_vectors("probe", probe, d), dtype)
