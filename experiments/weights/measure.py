"""How far weights move: orders in the width, under gradient descent and under Adam.

Networks of several widths c are trained on one noisy picture by gradient descent, with a step size that does not depend
on c in the NTK parametrisation, and by Adam with steps of the effective weights of the order 1/c.  The change of the
effective weights, those of the standard parametrisation, since the start is fitted by a power of c, in l2 (Frobenius
norm) and in l_inf (largest magnitude): after a number of steps that is the same for all widths, and where the loss
reaches the energy of the noise,

    L = 1/2 sum (z - y)^2 = 1/2 d sigma^2

Where the orders come from, for hidden weights W (c^2 of them) in a = sqrt(w/(c k^2)) W * h: under gradient descent each
entry of W moves by O(1/c), effective entries by O(c^-3/2), and the l2 norm over c^2 entries is O(c^-1/2).  A step of
Adam moves each effective entry by the step size eta = O(1/c), which is O(1) in l2.

It moves the output by more: all weights into a hidden unit move with the sign of the unit's output weight, which is
O(c^-1/2), so that the c units together contribute O(c sqrt(c) eta) = O(sqrt(c)).  A wide network reaches a given loss
in fewer steps, down to c^-1/2 as many, and its weights have moved less by then.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np

import ntkfast as nf
from experiments import analysis
from experiments.architectures import ARCHITECTURES, finite_network
from experiments.experiment import Result, Tools, Unit
from experiments.follow.measure import PICTURE, crop

if TYPE_CHECKING:
    from experiments.scales import Scale

OPTIMIZERS = {"gd": "gradient descent", "adam": "Adam"}
NORMS = ("l2", "linf")

# The rate of gradient descent, times 1/lambda_max of the exact kernel: small, so that the loss is crossed in small
# steps and narrow networks, whose largest eigenvalue may be twice that of the limit, are stable.
RATE_GD = 0.5
# The rate of Adam, over c: effective hidden weights have the standard deviation sqrt(2/(9 c)), 0.12 at c = 16, and wide
# networks still take several steps to the loss.
RATE_ADAM = 0.002
STEPS_ADAM = 64  # that all widths are compared at
EARLIER = (4, 16)  # where they are compared too: before, and about when, wide networks reach the loss


def units(scale: Scale) -> list[Unit]:
    """One network and one optimizer each."""
    sizes = scale.weights
    found = []
    for name in ARCHITECTURES:
        for optimizer in OPTIMIZERS:
            for width, seeds in sizes.networks:
                for seed in range(seeds):
                    settings = {
                        "architecture": name,
                        "network": repr(ARCHITECTURES[name]),
                        "picture": PICTURE,
                        "side": sizes.side,
                        "optimizer": optimizer,
                        "rate": RATE_GD if optimizer == "gd" else RATE_ADAM,
                        "width": width,
                        "seed": seed,
                        "most_steps": sizes.most_steps,
                    }
                    found.append(Unit(f"{name}/{optimizer}/width={width}/seed={seed}", settings))
    return found


def run(settings: dict[str, Any], tools: Tools) -> Result:
    """Train one network until the loss is reached."""
    from ntkfast.finite import Record, train

    image = crop(settings["side"])
    level = 0.5 * image.noisy.size * image.sigma**2
    rate, common = settings["rate"], STEPS_ADAM
    if settings["optimizer"] == "gd":
        lambda_max, common = closed_form(settings["architecture"], settings["side"], rate, settings["most_steps"])
        rate /= lambda_max
    steps = common
    while True:
        # Again from the start, since Adam's moments do not outlive a call; at most twice the work.
        module = finite_network(
            ARCHITECTURES[settings["architecture"]], settings["width"], settings["seed"], tools.device
        )
        training = train(
            module,
            image.noisy,
            image.noisy,
            optimizer=settings["optimizer"],
            steps=steps,
            learning_rate=rate,
            record=Record(steps=range(steps + 1)),
            progress=tools.progress,
        )
        reached = analysis.crossing(training.loss, level)
        if reached is not None or steps >= settings["most_steps"]:
            break
        steps = min(2 * steps, settings["most_steps"])
    changes = {"l2": training.weight_change_l2, "linf": training.weight_change_linf}

    def change(step: float) -> dict[str, dict[str, float]]:
        return {norm: {name: between(values, step) for name, values in changes[norm].items()} for norm in NORMS}

    values = {
        "level": level,
        "common_steps": common,
        "reached": reached,
        "loss_at_common_steps": float(training.loss[common]),
        "change": {
            "steps": change(common),
            "loss": None if reached is None else change(reached),
            **{str(step): change(step) if step <= steps else None for step in EARLIER},
        },
    }
    return Result(values)


@functools.lru_cache(maxsize=8)
def closed_form(architecture: str, side: int, rate: float, most_steps: int) -> tuple[float, int]:
    """lambda_max of the exact kernel, and the step at which the closed form reaches the loss at rate/lambda_max."""
    image = crop(side)
    y = image.noisy.reshape(-1, 1)
    spectrum = analysis.Spectrum(nf.NTK(ARCHITECTURES[architecture], image.noisy, dtype="float64").dense())
    # z_t of all steps by the eigenpairs: |z_t - y|^2 = sum of ((1 - rate lambda/lambda_max)^t v^T y)^2
    left = (1 - rate * spectrum.values / spectrum.values[-1]) ** np.arange(most_steps + 1)[:, None]
    loss = 0.5 * np.square(left * (spectrum.vectors.T @ y)[:, 0]).sum(axis=1)
    reached = analysis.crossing(loss, 0.5 * image.noisy.size * image.sigma**2)
    return float(spectrum.values[-1]), most_steps if reached is None else max(1, round(reached))


def between(values: np.ndarray, step: float) -> float:
    """Value at a step, linearly between two."""
    return float(np.interp(step, np.arange(len(values)), values))
