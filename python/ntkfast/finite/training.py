"""Training of a finite network on one image, with what the closed form says about it recorded on the way.

The loss is L = 1/2 sum (z - y)^2 over pixels and channels.  With the trained parameters q, J = dz/dq and
Theta_hat = J J^T, a step of gradient descent of size eta moves the output by

    z_{t+1} = z_t - eta J J^T (z_t - y) + O(eta^2) = z_t + eta Theta_hat_t (y - z_t) + O(eta^2)

which is the iteration of :func:`ntkfast.gradient_descent` where Theta_hat_t stays near Theta: as the width grows, and
exactly, at any width, for a network that is linear in its parameters.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from .. import _check
from ..images import as_planes, as_vectors
from .empirical import EmpiricalNTK, cast, empirical_ntk, first_output, parameter_like, planes_of, to_tensor
from .modules import NTKConv2d

__all__ = ["Record", "Training", "train"]

OPTIMIZERS = ("gd", "momentum", "adam")

# This is the momentum of the heavy ball.
MOMENTUM = 0.9

# Adam has these in Kingma & Ba, ICLR 2015.
BETAS = (0.9, 0.999)
EPSILON = 1e-8

# Steps between two looks at whether the output is still finite: a look costs little, but on a GPU it waits.
CHECK_EVERY = 32

# Points of the default grid of recorded steps, besides 0.
GRID_POINTS = 24


@dataclass(frozen=True, eq=False)
class Record:
    """A record says what :func:`train` is to look at on its way, and when.

    Parameters
    ----------
    steps : iterable of int, optional
        Steps to record, each between 0 and those of the training; default a geometric grid with both.
    clean : array_like, shape of the target, real, optional
        What the PSNR compares with, in the units of the target; less the same mean, where that was subtracted.
    data_range : float, optional
        Largest minus smallest possible value of ``clean``, positive.  Required with it.
    probe : array_like, shape (d_out,) or (d_out, k), real, optional
        Vectors that the empirical tangent kernel is to be applied to, d_out = H*W*C_out, channels of a pixel together;
        with them the module must be one that :func:`empirical_ntk` takes: no Dropout or BatchNorm in training mode.

    Raises
    ------
    TypeError, ValueError
        If ``clean`` and ``data_range`` are not given together, or ``steps`` are no steps; the message names it.
        The rest is checked by :func:`train`, which knows the shapes.

    Examples
    --------
    >>> import ntkfast as nf
    >>> nf.finite.Record(steps=[100, 0, 10]).steps
    (0, 10, 100)
    """

    steps: Iterable[int] | None = None
    clean: Any = None
    data_range: float | None = None
    probe: Any = None

    def __post_init__(self) -> None:
        if self.clean is None and self.data_range is not None:
            raise ValueError(f"data_range must come with clean, got {self.data_range!r} alone")
        if self.clean is not None:
            if self.data_range is None:
                raise ValueError("data_range must be given with clean: the largest minus the smallest possible value")
            object.__setattr__(self, "data_range", _check.positive("data_range", self.data_range))
        if self.steps is not None:
            object.__setattr__(self, "steps", _ascending(self.steps))

    def steps_of(self, most: int) -> tuple[int, ...]:
        """The steps to record in a training of ``most`` steps, ascending.

        Parameters
        ----------
        most : int
            Steps of the training, at least 0.

        Returns
        -------
        tuple of int

        Raises
        ------
        ValueError
            If one of them is beyond ``most``.

        Examples
        --------
        >>> import ntkfast as nf
        >>> nf.finite.Record().steps_of(5)
        (0, 1, 2, 3, 4, 5)
        """
        if self.steps is None:
            grid = np.geomspace(1, most, GRID_POINTS).round().astype(int).tolist() if most else []
            return tuple(sorted({0, *grid}))
        steps = tuple(self.steps)
        if steps[-1] > most:
            raise ValueError(f"record must have steps between 0 and steps = {most}, got {steps[0]} to {steps[-1]}")
        return steps


@dataclass(frozen=True, eq=False)
class Training:
    """A training has what :func:`train` saw at the recorded steps.

    Attributes
    ----------
    steps : tuple of int
        The n recorded steps, ascending.
    outputs : ndarray, shape (n, H, W) or (n, H, W, C_out)
        z at each of them, laid out as the target, in its units and in the type of the module; centred if asked for.
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

    Examples
    --------
    >>> import numpy as np
    >>> import ntkfast as nf
    >>> module = nf.finite.to_torch(nf.vanilla_cnn(depth=1, kernel_size=3), width=8, in_channels=1)
    >>> y = np.random.default_rng(0).standard_normal((6, 6))
    >>> training = nf.finite.train(module, y, y, steps=3, learning_rate=0.001)
    >>> training.outputs.shape, sorted(training.weight_l2)
    ((4, 6, 6), ['0', '2'])
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
    steps: int,
    learning_rate: float,
    channel_axis: int | None = None,
    optimizer: str = "gd",
    centred: bool = True,
    record: Record | None = None,
    progress: Callable[[float], None] | None = None,
) -> Training:
    """Train a network on one image, in place, and record how.

    Parameters
    ----------
    module : torch.nn.Module
        Maps (1, C, H, W) to (1, C_out, H, W), with parameters of float32 or float64, on any device; those with
        ``requires_grad`` are trained.
    x : array_like, shape (H, W), or with a channel axis, real
        The network's input.
    y : array_like, shape (H, W), or with a channel axis, real
        The target.  Both are cast to the type of the parameters.
    steps : int
        Number of steps, at least 0 and at most 2**53.
    learning_rate : float
        Positive.  For "gd" and "momentum" that of :func:`ntkfast.gradient_descent`, in units of one over the kernel's:
        with "gd" it must stay below 2/lambda_max of the tangent kernel.  For "adam" each effective weight moves by
        about learning_rate/c a step, c being the largest number of input channels of the module's NTKConv2d, its width;
        in a module without NTKConv2d by learning_rate itself.
    channel_axis : int, optional
        Axis of the channels of x, of y and of ``record.clean``, which then have 3 dimensions each, if need be with one
        channel; None if all are (H, W).
    optimizer : {"gd", "momentum", "adam"}
        - "gd": q <- q - learning_rate * dL/dq.
        - "momentum": heavy ball, v <- 0.9 v + dL/dq, q <- q - learning_rate * v.
        - "adam": Adam with the betas 0.9 and 0.999 on the *effective* weights, those of the standard parametrisation.
    centred : bool
        Whether z_t is f_t(x) - f_0(x), the network's output less what it was at the start of this training, so that
        z_0 = 0 as in the closed form; else z_t = f_t(x).
    record : Record, optional
        What to look at, and at which steps; default ``Record()``.
    progress : callable, optional
        Called with the fraction of the steps done.  What it raises stops the training; StopIteration does so without
        an error, as in SciPy's minimizers, and what was recorded until then is returned.

    Returns
    -------
    Training
        What was seen.

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

    Examples
    --------
    A convolution alone is linear in its weights, so that its training is the closed form at any width:

    >>> import numpy as np
    >>> import ntkfast as nf
    >>> network = nf.Network([nf.Conv(3)])
    >>> y = np.random.default_rng(0).standard_normal((6, 6))
    >>> z, info = nf.gradient_descent(nf.NTK(network, y, dtype="float64"), y, steps=50, return_info=True)
    >>> module = nf.finite.to_torch(network, width=8, in_channels=1)
    >>> record = nf.finite.Record(steps=[50])
    >>> training = nf.finite.train(module, y, y, steps=50, learning_rate=info.learning_rate, record=record)
    >>> bool(np.abs(training.outputs[0] - z).max() < 1e-6)
    True
    """
    like = parameter_like(module)
    x_tensor = to_tensor("x", x, channel_axis, like)
    target = to_tensor("y", y, channel_axis, like)
    steps = _check.steps("steps", steps)
    record = Record() if record is None else record
    if not isinstance(record, Record):
        raise TypeError(f"record must be a ntkfast.finite.Record, got {record!r}")
    due = frozenset(record.steps_of(steps))
    _check.callback("progress", progress)
    update = _optimizer(
        module, _check.choice("optimizer", optimizer, OPTIMIZERS), _check.positive("learning_rate", learning_rate)
    )
    recorder = _Recorder(module, x_tensor, target, channel_axis, record)
    z_start, start = torch.zeros_like(target), time.perf_counter()
    try:
        for step in range(steps + 1):
            with torch.set_grad_enabled(step < steps):  # after the last step the output is only looked at
                # A copy: a first layer that works in place writes over it.
                f = module(x_tensor.clone()) if step else _output_like(target, module, x_tensor)
            if step == 0 and centred:
                z_start = f.detach()
            z = f.detach() - z_start
            if (step in due or step == steps or step % CHECK_EVERY == 0) and not bool(z.isfinite().all()):
                raise RuntimeError(
                    f"training diverged: the output is not finite at step {step}; learning_rate must be smaller than "
                    f"{learning_rate!r}"
                )
            if step in due:
                recorder.record(step, z)
            if step == steps:
                break
            update.zero_grad()
            f.backward(z - target)  # dL/df = dL/dz
            update.step()
            if progress is not None and _asked_to_stop(progress, (step + 1) / steps):
                break
    finally:
        update.zero_grad()  # also after what progress has raised, and after divergence
    return recorder.training(time.perf_counter() - start)


def _asked_to_stop(progress: Callable[[float], None], fraction: float) -> bool:
    """Report progress; whether that raised StopIteration."""
    try:
        progress(fraction)
    except StopIteration:
        return True
    return False


def _output_like(target: torch.Tensor, module: torch.nn.Module, x: torch.Tensor) -> torch.Tensor:
    """The module's output at the start, or an error if the target has another shape."""
    f = first_output(module, x)
    if f.shape != target.shape:
        _, channels, height, width = target.shape
        raise ValueError(
            f"y must have the shape of the module's output, ({f.shape[2]}, {f.shape[3]}) with {f.shape[1]} "
            f"channels, got ({height}, {width}) with {channels}"
        )
    return f


class _Recorder:
    """The recorder looks at each step that is to be recorded."""

    def __init__(
        self,
        module: torch.nn.Module,
        x: torch.Tensor,
        target: torch.Tensor,
        channel_axis: int | None,
        record: Record,
    ) -> None:
        self.module, self.x, self.axis = module, x, channel_axis
        self.y = target[0].cpu().numpy().astype(np.float64)  # as the network is trained on it, (C, H, W)
        self.clean, self.data_range = None, 0.0
        if record.clean is not None and record.data_range is not None:
            self.clean, self.data_range = _clean(record.clean, channel_axis, self.y.shape), record.data_range
        self.probe = None
        if record.probe is not None:
            self.probe = cast("probe", as_vectors("probe", record.probe, self.y.size), target.dtype)
            self._kernel()  # refuses before any step what has no kernel
        self.seconds = 0.0
        self.steps: list[int] = []
        self.outputs: list[np.ndarray] = []
        self.actions: list[np.ndarray] = []
        self.changes: list[dict[str, tuple[float, float]]] = []
        self.start = {name: weight.detach().clone() for name, weight, _ in _convolutions(module)}
        self.start_norms = {name: _norms(scale * weight) for name, weight, scale in _convolutions(module)}

    def _kernel(self) -> EmpiricalNTK:
        """The tangent kernel at the present weights."""
        return empirical_ntk(self.module, planes_of(self.x), channel_axis=0)

    def record(self, step: int, z: torch.Tensor) -> None:
        """Look at the weights and at the output z of a step."""
        before = time.perf_counter()
        self.steps.append(step)
        self.outputs.append(z[0].cpu().numpy())
        self.changes.append(
            {name: _norms(scale * (weight - self.start[name])) for name, weight, scale in _convolutions(self.module)}
        )
        if self.probe is not None:
            self.actions.append(self._kernel().matmat(self.probe))
        self.seconds += time.perf_counter() - before

    def training(self, seconds: float) -> Training:
        """All that was seen in so many seconds."""
        outputs = np.array(self.outputs).reshape(-1, *self.y.shape)
        over_pixels = (1, 2, 3)
        psnr = None
        if self.clean is not None:
            error = ((outputs.astype(np.float64) - self.clean) ** 2).mean(axis=over_pixels)
            with np.errstate(divide="ignore"):  # no error at all: infinite
                psnr = 10.0 * np.log10(self.data_range**2 / error)
        l2, linf = (
            {name: np.array([change[name][norm] for change in self.changes]) for name in self.start} for norm in (0, 1)
        )
        return Training(
            steps=tuple(self.steps),
            outputs=_laid_out(outputs, self.axis),
            loss=0.5 * ((outputs.astype(np.float64) - self.y) ** 2).sum(axis=over_pixels),
            psnr=psnr,
            weight_l2={name: norms[0] for name, norms in self.start_norms.items()},
            weight_linf={name: norms[1] for name, norms in self.start_norms.items()},
            weight_change_l2=l2,
            weight_change_linf=linf,
            kernel_action=None if self.probe is None else np.array(self.actions),
            seconds=seconds - self.seconds,
        )


def _laid_out(outputs: np.ndarray, channel_axis: int | None) -> np.ndarray:
    """Outputs (n, C, H, W) as the caller lays out images."""
    if channel_axis is None:
        return np.ascontiguousarray(outputs[:, 0])
    axis = channel_axis if channel_axis < 0 else channel_axis + 1
    return np.ascontiguousarray(np.moveaxis(outputs, 1, axis))


def _clean(clean: Any, channel_axis: int | None, shape: tuple[int, ...]) -> np.ndarray:
    """``clean`` in float64, (C, H, W)."""
    planes: np.ndarray = as_planes("clean", clean, channel_axis)[0].astype(np.float64)
    if planes.shape != shape:
        channels, height, width = shape
        raise ValueError(
            f"clean must have the shape of y, ({height}, {width}) with {channels} channels, got shape {np.shape(clean)}"
        )
    return planes


def _ascending(steps: Any) -> tuple[int, ...]:
    """Steps to record, each once."""
    if isinstance(steps, (str, bytes)) or not isinstance(steps, Iterable):
        raise TypeError(f"steps must be a sequence of steps to record, got {steps!r}")
    numbers = tuple(sorted({_check.at_least("steps", step, 0) for step in steps}))
    if not numbers:
        raise ValueError("steps must have at least one step to record, got none")
    return numbers


def _optimizer(module: torch.nn.Module, optimizer: str, learning_rate: float) -> torch.optim.Optimizer:
    """Return the optimizer of the trained parameters, or raise an error naming the module."""
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
