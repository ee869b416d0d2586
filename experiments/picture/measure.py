"""The units of work: exact kernels with their Nystrom approximation, and trainings as far as they are let."""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from scipy.sparse.linalg import LinearOperator

from experiments import analysis, architectures
from experiments.architectures import INPUTS, OF_PICTURES
from experiments.experiment import Result, Tools, Unit, Work
from experiments.picture.reading import MEANS, OwnPicture
from experiments.scales import PictureSizes
from ntkfast import NTK, Network, nystrom

if TYPE_CHECKING:
    from experiments.data import Problem

SEED = 0  # names the networks, the noise as the input, and the landmarks
EIGENVALUE_TOLERANCE, EIGENVALUE_VECTORS = 0.05, 6  # a rate of 1/lambda_max is stable up to twice that
OPTIMIZERS = ("gd", "adam")
DENSE_SHARE = 0.5  # share of the free memory that the kernel may fill, as there is one at a time

# A training has so many copies of each feature: itself, its gradient, and those that a convolution makes.
COPIES = 4


def work(own: OwnPicture) -> Work:
    """Everything that is computed of a picture."""
    return Work(name="picture", version=1, run=partial(run, own))


def kernel_units(own: OwnPicture, sigma: float, sizes: PictureSizes) -> list[Unit]:
    """One a network, input and mean; with noise as the input the kernel is one for both means."""
    found = []
    for name in OF_PICTURES:
        common = _settings(own, sigma, sizes, name) | {"landmarks": landmarks(own, sizes)}
        for mean in MEANS:
            unit_settings = {**common, "input": "image", "means": [mean]}
            found.append(Unit(f"kernel/{name}/image/{mean}", unit_settings))
        found.append(Unit(f"kernel/{name}/noise", {**common, "input": "noise", "means": list(MEANS)}))
    return found


def finite_units(
    own: OwnPicture, sigma: float, sizes: PictureSizes, minutes: float, eigenvalues: dict[tuple[str, str, str], float]
) -> list[Unit]:
    """One a mean, network, input and optimizer; ``eigenvalues`` are lambda_max by network, input and mean."""
    found = []
    for mean in MEANS:
        for source in INPUTS:
            for name in OF_PICTURES:
                if (name, source, mean) not in eigenvalues:
                    continue  # its kernel failed
                settings = _settings(own, sigma, sizes, name)
                settings |= {"input": source, "mean": mean, "width": sizes.widths[name], "minutes": minutes}
                for optimizer in OPTIMIZERS:
                    rate: dict[str, Any] = {"adam_rate": architectures.ADAM_RATE}
                    if optimizer == "gd":
                        rate = {"lambda_max": eigenvalues[name, source, mean]}
                    unit_settings = {**settings, "optimizer": optimizer, **rate}
                    found.append(Unit(f"{optimizer}/{name}/{source}/{mean}", unit_settings))
    return found


def _settings(own: OwnPicture, sigma: float, sizes: PictureSizes, network: str) -> dict[str, Any]:
    return {
        "pixels": own.fingerprint,
        "sigma": sigma,
        "network": network,
        "layers": repr(OF_PICTURES[network]),
        "most_steps": sizes.most_steps,
        "points": sizes.points,
        "channels": sizes.channels,
        "seed": SEED,
    }


def landmarks(own: OwnPicture, sizes: PictureSizes) -> int:
    """Number of landmarks of the Nystrom approximation."""
    height, width = own.pixels.shape[:2]
    return int(max(1, min(sizes.landmarks, height * width // 10)))


def require_memory(own: OwnPicture, sizes: PictureSizes, device: str) -> None:
    """Refuse, before any work, a picture whose kernels or trainings do not fit.

    Raises
    ------
    MemoryError
        The message has the bytes that are needed.
    """
    height, width, colours = own.pixels.shape
    free = psutil.virtual_memory().available
    for name, network in OF_PICTURES.items():
        for channels in (colours, sizes.channels):
            image = np.zeros((height, width, channels), np.float32)
            NTK(
                network, image, channel_axis=-1, device=architectures.kernel_device(device)
            )  # refuses what will not fit
        needed = (sizes.points + 2) * 2 * 8 * own.pixels.size  # the path of a closed form, and its products
        if device == "cpu":
            needed = max(needed, finite_bytes(network, sizes.widths[name], height * width, max(channels, colours)))
        if needed > free:
            raise MemoryError(
                f"the {architectures.LABELS[name]} on {height} x {width} pixels needs {needed} bytes, but only {free} "
                "are free: give a smaller picture"
            )


def finite_bytes(network: Network, width: int, pixels: int, channels: int) -> int:
    """Bytes of a training in float32, by the features that a reverse pass keeps."""
    nodes = network.graph()
    numbers = channels * pixels + sum(width * pixels // node.scale**2 for node in nodes[1:])
    return 4 * COPIES * math.ceil(numbers)


def run(own: OwnPicture, settings: dict[str, Any], tools: Tools) -> Result:
    """Compute a kernel and its filters, or train a network until ``tools.progress`` raises StopIteration."""
    return _run_finite(own, settings, tools) if "optimizer" in settings else _run_kernel(own, settings, tools)


def _run_kernel(own: OwnPicture, settings: dict[str, Any], tools: Tools) -> Result:
    problems = {mean: own.problem(settings["sigma"], mean) for mean in settings["means"]}
    network = OF_PICTURES[settings["network"]]
    exact = _kernel(network, _input(settings, next(iter(problems.values()))), tools)
    kernels: dict[str, LinearOperator] = {"exact": exact}
    if settings["network"] == "vanilla":
        kernels["nystrom"] = nystrom(exact, settings["landmarks"], landmarks="random", rng=settings["seed"])
    steps = analysis.times(settings["most_steps"], settings["points"])
    values: dict[str, Any] = {}
    for name, kernel in kernels.items():
        values[name] = {
            mean: best(problem, analysis.closed_form(kernel, problem.noisy, steps), steps)
            for mean, problem in problems.items()
        }
    some = next(iter(problems.values()))
    return Result({**values, "lambda_max": analysis.found(exact.lambda_max), "noisy": some.psnr(some.noisy)})


def _kernel(network: Network, x: np.ndarray, tools: Tools) -> NTK:
    """The exact kernel, kept where half of the free memory holds it: it is multiplied with some twenty times."""
    where = architectures.kernel_device(tools.device)
    exact = NTK(network, x, channel_axis=-1, device=where, progress=tools.progress)
    room = DENSE_SHARE * psutil.virtual_memory().available
    if exact.device == "cpu" and exact.storage != "dense" and exact.memory_estimate()["dense"] <= room:
        exact = NTK(network, x, channel_axis=-1, device=where, storage="dense", progress=tools.progress)
    return exact


def _input(settings: dict[str, Any], problem: Problem) -> np.ndarray:
    """The input of the network, the same of a finite one and of the exact kernel: (H, W, C)."""
    if settings["input"] == "image":
        return problem.noisy
    height, width = problem.noisy.shape[:2]
    return architectures.noise_channels(height, settings["channels"], settings["seed"], width=width)


def best(problem: Problem, path: np.ndarray, steps: np.ndarray) -> dict[str, Any]:
    """PSNR at the best of some steps, that step, and whether it is the last one."""
    quality = [problem.psnr(z) for z in path]
    at = int(np.argmax(quality))
    return {"psnr": quality[at], "steps": int(steps[at]), "last": at == len(quality) - 1}


def _run_finite(own: OwnPicture, settings: dict[str, Any], tools: Tools) -> Result:
    from ntkfast.finite import Record, empirical_ntk, train

    problem = own.problem(settings["sigma"], settings["mean"])
    x, done = _input(settings, problem), 0

    def module() -> Any:
        return architectures.finite_network(
            OF_PICTURES[settings["network"]],
            settings["width"],
            settings["seed"],
            tools.device,
            in_channels=x.shape[2],
            out_channels=problem.noisy.shape[2],
        )

    def progress(fraction: float) -> None:
        nonlocal done
        done = round(fraction * settings["most_steps"])
        tools.progress(fraction)

    if settings["optimizer"] == "adam":
        rate = float(settings["adam_rate"])
    else:
        try:
            start = _stoppable(empirical_ntk(module(), x, channel_axis=-1), tools)
            own_largest = analysis.largest_eigenvalue(start, EIGENVALUE_TOLERANCE, EIGENVALUE_VECTORS)
        except StopIteration:  # before the first step
            return Result({"done": 0})
        rate = 1.0 / max(settings["lambda_max"], own_largest)
    steps = analysis.times(settings["most_steps"], settings["points"])
    trained = train(
        module(),
        x,
        problem.noisy,
        steps=settings["most_steps"],
        learning_rate=rate,
        channel_axis=-1,
        optimizer=settings["optimizer"],
        record=Record(steps=steps.tolist()),
        progress=progress,
    )
    if not trained.steps:
        return Result({"done": done})
    found = best(problem, trained.outputs.astype(np.float64), np.array(trained.steps))
    return Result({"done": done, **found})


def _stoppable(kernel: LinearOperator, tools: Tools) -> LinearOperator:
    """The kernel, each of whose products asks whether there is time."""

    def product(v: np.ndarray) -> np.ndarray:
        tools.progress(0.0)
        return np.asarray(kernel @ v)

    return LinearOperator(kernel.shape, matvec=product, dtype=kernel.dtype)
