"""Gradient descent follows the filter: trained networks of finite width against the closed form of infinite width.

A network f of width c in the NTK parametrisation is trained on one noisy picture y, which is its input too, by gradient
descent with the step size eta = 1/lambda_max of the exact kernel Theta.  Its output less that at the start is compared,
step by step, with

    z_t = (I - (I - eta Theta)^t) y

at the same step: relative distance |f_t - f_0 - z_t| / |z_t| at the t where z_t has the best PSNR.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING, Any

import numpy as np

import ntkfast as nf
from experiments import analysis
from experiments.architectures import ARCHITECTURES, finite_network
from experiments.data import Problem, problem
from experiments.experiment import Result, Tools, Unit

if TYPE_CHECKING:
    from experiments.scales import Scale

PICTURE = "chelsea"
CENTRE = (0.4, 0.5)

# Halve the step size until it is below this over the largest eigenvalue of the network's own kernel at the start; at 2
# gradient descent diverges, and the kernel still moves.
STABLE = 1.5

CURVE_POINTS = 24  # recorded steps
BEYOND = 3.0  # the curves go on to this many times the best t


def crop(side: int) -> Problem:
    """The picture of the finite networks."""
    return problem(PICTURE, side, centre=CENTRE)


def units(scale: Scale) -> list[Unit]:
    """One network each."""
    sizes = scale.follow
    found = []
    for name, network in ARCHITECTURES.items():
        for width, seeds in sizes.networks:
            for seed in range(seeds):
                settings = {
                    "architecture": name,
                    "network": repr(network),
                    "picture": PICTURE,
                    "side": sizes.side,
                    "width": width,
                    "seed": seed,
                    "most_steps": sizes.most_steps,
                    "curve": width <= sizes.widest_curve,
                }
                found.append(Unit(f"{name}/width={width}/seed={seed}", settings))
    return found


def run(settings: dict[str, Any], tools: Tools) -> Result:
    """Train one network, and compare it with the closed form."""
    from ntkfast.finite import Record, train

    image = crop(settings["side"])
    K, spectrum, best = closed_form(settings["architecture"], settings["side"], settings["most_steps"])
    lambda_max = float(spectrum.values[-1])
    last = min(round(BEYOND * best), settings["most_steps"]) if settings["curve"] else best
    # Without a curve nothing else is recorded: norms of a wide network's weights take as long as a step.
    between = np.geomspace(1, max(last, 1), CURVE_POINTS).round().astype(int).tolist() if settings["curve"] else []
    times = sorted({0, best, *between})

    module = finite_network(ARCHITECTURES[settings["architecture"]], settings["width"], settings["seed"], tools.device)
    own = largest_eigenvalue(module, image.noisy, spectrum.vectors[:, -1])
    # The least n >= 0 with own / (2^n lambda_max) <= STABLE.
    halvings = max(0, math.ceil(math.log2(own / (STABLE * lambda_max))))
    factor = 2**halvings
    rate = 1 / (factor * lambda_max)
    training = train(
        module,
        image.noisy,
        image.noisy,
        steps=factor * times[-1],
        learning_rate=rate,
        record=Record(steps=[factor * t for t in times]),
        progress=tools.progress,
    )
    # With a smaller step size the closed form takes it too, and as many more steps.
    exact = nf.gradient_descent(K, image.noisy, steps=list(training.steps), learning_rate=rate)
    at = times.index(best)
    values = {
        "noisy_psnr": image.psnr(image.noisy),
        "best_step": best,
        "cut": best == settings["most_steps"],
        "lambda_max": lambda_max,
        "own_lambda_max": own,
        "halvings": halvings,
        "distance": analysis.relative_distance(training.outputs[at], exact[at]),
        "direction": written(training.outputs[at] - exact[at]),
        "times": times,
        "psnr": [image.psnr(z) for z in training.outputs],
        "exact_psnr": [image.psnr(z) for z in exact],
    }
    return Result(values)


@functools.lru_cache(maxsize=8)
def closed_form(architecture: str, side: int, most_steps: int) -> tuple[nf.NTK, analysis.Spectrum, int]:
    """The exact kernel, its eigenpairs, and the step up to ``most_steps`` of the best PSNR.

    All steps by the eigenpairs of the dense kernel, in milliseconds where Lanczos took seconds for the errors of each.
    """
    image = crop(side)
    K = nf.NTK(ARCHITECTURES[architecture], image.noisy, dtype="float64")
    spectrum = analysis.Spectrum(K.dense())
    path = spectrum.filtered(image.noisy.reshape(-1, 1), np.arange(most_steps + 1))
    return K, spectrum, int(np.argmax([image.psnr(z.reshape(image.noisy.shape)) for z in path]))


def largest_eigenvalue(module: Any, x: np.ndarray, start: np.ndarray) -> float:
    """That of the network's tangent kernel at its present weights, to a per cent.

    From the exact kernel's leading eigenvector as the start, few products will do.
    """
    from scipy.sparse.linalg import eigsh

    from ntkfast.finite import empirical_ntk

    K = empirical_ntk(module, x)
    v0 = start.astype(K.dtype)
    return float(eigsh(K, 1, which="LA", ncv=4, tol=0.01, v0=v0, return_eigenvectors=False)[0])


def written(error: np.ndarray) -> str:
    """The direction of an error, one whole number for each pixel, of the order 100: the mean over networks needs it."""
    size = float(np.sqrt(np.mean(np.square(error)))) or 1.0
    return " ".join(str(round(100 * value / size)) for value in error.ravel().tolist())
