"""Experiment ``adam``: the tangent kernel before and after training, and how far a fixed one explains the result.

A finite network is trained by gradient descent and by Adam from the same weights.  At the best time of each (the
highest PSNR of its output) its empirical kernel is compared with that at the start: by its change, its leading
eigenvectors, and the filter that it defines in closed form.  Changes are compared over the width at equal loss.

With three colours the kernel Theta^ of the outputs has 3 d rows.  Weights and eigenvectors are shown of its part in the
gray direction, B^T Theta^ B with B v = v (x) (1, 1, 1)/sqrt(3): the kernel of the outputs' mean, scaled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse.linalg
from scipy.sparse.linalg import LinearOperator

from experiments import analysis, architectures, data
from experiments.architectures import INPUTS
from experiments.data import Problem
from experiments.experiment import Result, Tools, Unit
from ntkfast import NTK

if TYPE_CHECKING:
    from experiments.scales import Scale
    from ntkfast.finite import Training

PICTURE, CENTRE = "astronaut", (0.215, 0.44)  # the face
TRAINED = ("vanilla", "autoencoder")
OPTIMIZERS = ("gd", "adam")
FAST = "fast_adam"  # Adam with a large learning rate, for the change of the kernel alone
POINTS = 61  # recorded steps of a training, and of a closed form
CHECKPOINTS = 8  # recorded steps of a training at which the change of the kernel is measured
COLOURS = 3
PIXEL = (0.5, 0.34)  # whose weights are drawn: shares of the sides
SHOWN = 4  # eigenvectors drawn


def units(scale: Scale) -> list[Unit]:
    """One a network, input, width and seed: noise as input, and what is costly, at the main width alone."""
    sizes = scale.adam
    settings: dict[str, Any] = {"side": sizes.side, "reduction": sizes.reduction, "most_steps": sizes.most_steps}
    settings |= {"probes": sizes.probes, "eigenvectors": sizes.eigenvectors, "picture": PICTURE, "centre": list(CENTRE)}
    settings |= {
        "channels": architectures.NOISE_CHANNELS,
        "fast_adam_rate": architectures.FAST_ADAM_RATE,
        "points": POINTS,
        "checkpoints": CHECKPOINTS,
        "pixel": list(PIXEL),
    }
    settings |= {"closed_form_steps": sizes.closed_form_steps}
    found = []
    for name in TRAINED:
        for source in INPUTS:
            for width in sizes.widths[name]:
                main = width == sizes.main_width[name]
                if main or source == "image":
                    case: dict[str, Any] = {
                        "network": name,
                        "layers": repr(architectures.network(name)),
                        "input": source,
                    }
                    case |= {"width": width, "main": main, "adam_rate": architectures.ADAM_RATE}
                    found += [
                        Unit(f"{name}/{source}/width={width}/seed={seed}", {**case, "seed": seed, **settings})
                        for seed in range(sizes.seeds)
                    ]
    return found


def run(settings: dict[str, Any], tools: Tools) -> Result:
    """Both trainings, the kernels at their ends and the filters that these define."""
    side, seed = settings["side"], settings["seed"]
    problem = data.problem(
        settings["picture"], side, reduction=settings["reduction"], centre=tuple(settings["centre"]), gray=False
    )
    noise = settings["input"] == "noise"
    x = architectures.noise_channels(side, settings["channels"], seed) if noise else problem.noisy
    trial = _Trial(settings, tools, problem, x)
    values, arrays = {"noisy_psnr": problem.psnr(problem.noisy)}, {"clean": problem.clean, "noisy": problem.noisy}
    for part in (_fixed_kernels, _trainings, _adapted_kernels):
        found, kept = part(trial)
        values, arrays = values | found, arrays | kept
    return Result(values, arrays)


Part = tuple[dict[str, Any], dict[str, np.ndarray]]  # values and arrays of a result


def _fixed_kernels(trial: _Trial) -> Part:
    """The filters of the exact kernel and of the network's at its start; finds the rate of gradient descent."""
    network = architectures.network(trial.settings["network"])
    where = architectures.kernel_device(trial.tools.device)
    exact = NTK(network, trial.x, device=where, channel_axis=-1)
    path = trial.filter_path(exact)
    values, best = trial.best("exact", path)
    if trial.settings["main"] and trial.settings["input"] == "image":
        # The refining pass: the kernel of the first result filters the same noisy image.
        values |= trial.best("refined", trial.filter_path(NTK(network, path[best], device=where, channel_axis=-1)))[0]
    trial.start_path = trial.filter_path(trial.start)
    found, best = trial.best("start", trial.start_path)
    # The filters have found the eigenvalues; that of a narrow network may be well above the limit's.
    trial.rate = 1.0 / max(analysis.found(exact.lambda_max), analysis.found(trial.start.lambda_max))
    trial.tools.progress(0.2)
    trial.start_output = trial.start_path[best]
    return values | found, {"start_output": trial.start_output}


def _trainings(trial: _Trial) -> Part:
    """All trainings to their ends, and how far their best outputs are from the filters of the kernel at the start."""
    values: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    for optimizer in trial.optimizers:
        path = trial.trainings[optimizer] = trial.train(optimizer)[0]
        psnr = analysis.found(path.psnr)
        best = int(np.argmax(psnr))
        values |= {
            f"{optimizer}_psnr": float(psnr[best]),
            f"{optimizer}_steps": path.steps[best],
            f"{optimizer}_distance": min(analysis.relative_distance(path.outputs[best], z) for z in trial.start_path),
            f"{optimizer}_seconds": path.seconds,
        }
        arrays |= {
            f"{optimizer}_path_steps": np.array(path.steps),
            f"{optimizer}_path_psnr": psnr,
            f"{optimizer}_output": path.outputs[best],
        }
    trial.tools.progress(0.5)
    return values, arrays


def _adapted_kernels(trial: _Trial) -> Part:
    """How the kernel changes, and what it is at the best times.  Needs the trainings.

    The kernel is looked at in a second training, which ends where the first one says: late enough for the best step and
    for the energy of the noise, 1/2 sum (z - y)^2 = 1/2 n sigma^2 for n numbers, or the lowest loss that all trainings
    of this network reach.  Changes are compared over the width where the loss is the same for all networks, which needs
    their losses: :func:`experiments.adam.summary.changes`.
    """
    main = trial.settings["main"]
    noise_energy = trial.problem.noisy.size * trial.problem.sigma**2 / 2
    level = max(noise_energy, *(float(path.loss.min()) for path in trial.trainings.values()))
    values: dict[str, Any] = {"noise_energy": noise_energy}
    arrays: dict[str, np.ndarray] = {}
    if main:
        values, arrays = (a | b for a, b in zip((values, arrays), trial.look("start", trial.start), strict=True))
    for n, (optimizer, path) in enumerate(trial.trainings.items(), 1):
        place = int(np.argmax(analysis.found(path.psnr)))
        best, equal = path.steps[place], path.steps[int(np.argmax(path.loss <= level))]
        again, module = trial.train(optimizer, stop=max(1, best, equal), probe=True)
        changes = analysis.relative_changes(analysis.found(again.kernel_action))
        values[f"{optimizer}_change"] = float(np.interp(best, again.steps, changes))
        values[f"{optimizer}_losses"] = {"steps": list(path.steps), "loss": path.loss.tolist()}
        values[f"{optimizer}_changes"] = {"steps": list(again.steps), "change": changes.tolist()}
        if main and optimizer in OPTIMIZERS:
            if best < again.steps[-1]:
                module = trial.train(optimizer, stop=max(1, best))[1]
            after = empirical(module, trial.x)
            found, kept = trial.look(optimizer, after)
            filtered = trial.filter_path(after)
            filter_values, at = trial.best(optimizer, filtered)
            values |= found | filter_values
            arrays |= kept | {f"{optimizer}_filter_output": filtered[at]}
            trained = path.outputs[place]
            for kernel, output in (("filter", filtered[at]), ("start_filter", trial.start_output)):
                values[f"{optimizer}_distance_to_{kernel}"] = analysis.relative_distance(output, trained)
        trial.tools.progress(0.5 + 0.5 * n / len(trial.trainings))
    return values, arrays


def empirical(module: Any, x: np.ndarray) -> LinearOperator:
    """The module's kernel at its present weights."""
    from ntkfast.finite import empirical_ntk

    return empirical_ntk(module, x, channel_axis=-1)


class _Trial:
    """A picture and an input, networks trained on them, and what is measured of kernels.

    Parameters
    ----------
    settings : dict
        Of the unit.
    tools : Tools
    problem : Problem
    x : ndarray, shape (H, W, C)
        The networks' input.
    """

    def __init__(self, settings: dict[str, Any], tools: Tools, problem: Problem, x: np.ndarray) -> None:
        self.settings, self.tools, self.problem, self.x = settings, tools, problem, x
        side = settings["side"]
        rng = np.random.default_rng(0)
        self.probes = rng.standard_normal((COLOURS * side * side, settings["probes"])).astype(np.float32)
        self.times = analysis.times(settings["closed_form_steps"], settings["points"])
        gray = problem.clean.mean(axis=2)
        self.clean = gray - gray.mean()
        self.start = empirical(self.module(), x)
        # Changes over the width are measured with the noisy image as input.
        self.optimizers = (*OPTIMIZERS, FAST) if settings["input"] == "image" else OPTIMIZERS
        # Found on the way: the filters of the kernel at the start and their best output, the rate of gradient descent,
        # the trainings.
        self.start_path: np.ndarray
        self.start_output: np.ndarray
        self.rate: float
        self.trainings: dict[str, Training] = {}

    def module(self) -> Any:
        """The network at its start."""
        settings = self.settings
        return architectures.finite_network(
            architectures.network(settings["network"]),
            settings["width"],
            settings["seed"],
            self.tools.device,
            in_channels=self.x.shape[2],
            out_channels=COLOURS,
        )

    def train(self, optimizer: str, *, stop: int | None = None, probe: bool = False) -> tuple[Training, Any]:
        """A training from the start, to its end or to ``stop``; what was recorded, and the module as it ended."""
        from ntkfast.finite import Record, train

        settings = self.settings
        steps = settings["most_steps"] if stop is None else stop
        points = settings["checkpoints" if probe else "points"]
        module = self.module()
        result = train(
            module,
            self.x,
            self.problem.noisy,
            optimizer="gd" if optimizer == "gd" else "adam",
            steps=steps,
            learning_rate=self.rate if optimizer == "gd" else settings[f"{optimizer}_rate"],
            channel_axis=-1,
            record=Record(
                steps=[0, *analysis.times(steps, points).tolist()],
                clean=self.problem.clean,
                data_range=1.0,
                probe=self.probes if probe else None,
            ),
        )
        return result, module

    def filter_path(self, kernel: LinearOperator) -> np.ndarray:
        """Gradient descent in closed form with a kernel, at all times: (n, H, W, 3)."""
        return analysis.closed_form(kernel, self.problem.noisy, self.times)

    def best(self, name: str, path: np.ndarray) -> tuple[dict[str, Any], int]:
        """PSNR and number of steps of the best one of a path, and its place."""
        quality = [self.problem.psnr(z) for z in path]
        place = int(np.argmax(quality))
        return {f"{name}_filter_psnr": quality[place], f"{name}_filter_steps": int(self.times[place])}, place

    def look(self, name: str, kernel: LinearOperator) -> Part:
        """Alignments with the clean picture; weights of a pixel and leading eigenvectors, as images."""
        side = self.settings["side"]
        gray = analysis.in_gray(kernel, COLOURS)
        values, vectors = scipy.sparse.linalg.eigsh(
            gray, self.settings["eigenvectors"], v0=np.ones(side * side, np.float32), tol=1e-3
        )
        vectors = vectors[:, ::-1]
        # |Theta^|_F^2 = 3 |gray part|_F^2 in the limit of infinite width, where the colours do not mix
        frobenius = float(np.linalg.norm(kernel @ self.probes)) / np.sqrt(COLOURS * self.probes.shape[1])
        shown = vectors[:, :SHOWN].T.reshape(-1, side, side)
        signs = np.sign((shown * self.clean).sum(axis=(1, 2)))  # bright where the picture is
        row, col = (round(share * side) for share in self.settings["pixel"])
        unit = np.zeros(side * side, np.float32)
        unit[row * side + col] = 1.0
        return {
            f"{name}_alignment": analysis.alignment(vectors, self.clean.ravel()),
            f"{name}_kernel_alignment": analysis.kernel_alignment(gray, self.clean.ravel(), frobenius),
        }, {
            f"{name}_weights": (gray @ unit).reshape(side, side),
            f"{name}_eigenvalues": values[::-1],
            f"{name}_eigenvectors": shown * signs[:, None, None],
            "pixel": np.array([row, col]),
        }
