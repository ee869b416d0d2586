"""Experiment ``table``: trained networks and filters on nine pictures, beside non-local means and CBM3D."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from bench.quality import methods, pictures

from experiments import analysis, architectures, data
from experiments.architectures import ARCHITECTURES, INPUTS
from experiments.data import Problem
from experiments.experiment import Result, Tools, Unit
from ntkfast import NTK, nystrom

if TYPE_CHECKING:
    import torch

    from experiments.scales import Scale

ANY_TIME, REFINED = "exact_any_time", "refined"

POINTS = 61  # recorded steps of a training, and steps of a closed form
EIGENVALUE_TOLERANCE = 0.01
LEVEL = 128.0  # the peers see it as the mean of the picture, whose values are 0 to 255


def units(scale: Scale) -> list[Unit]:
    """One a picture, network, input and seed; and one a picture for the peers."""
    sizes = scale.table
    part: dict[str, Any] = {"side": sizes.side, "reduction": sizes.reduction}
    # Where CBM3D is installed later, the unit's settings are others, and it is run again.
    bm3d = sizes.peers and (methods.BM3D_ENVIRONMENT / "requirements.json").exists()
    names = list(pictures.TEST)[: sizes.pictures]
    found = [Unit(f"{name}/peers", {"picture": name, "bm3d": bm3d, **part}) for name in names]
    settings: dict[str, Any] = {
        "most_steps": sizes.most_steps,
        "points": POINTS,
        "any_time_steps": sizes.any_time_steps,
    }
    settings |= {"landmarks": sizes.landmarks, "channels": architectures.NOISE_CHANNELS, **part}
    for seed in range(sizes.seeds):
        for name in names:
            for network in ARCHITECTURES:
                case: dict[str, Any] = {
                    "picture": name,
                    "network": network,
                    "layers": repr(architectures.network(network)),
                }
                case |= {"width": sizes.widths[network], "adam_rate": architectures.ADAM_RATE, "seed": seed}
                found += [
                    Unit(f"{name}/{network}/{source}/seed={seed}", {**case, "input": source, **settings})
                    for source in INPUTS
                ]
    return found


def run(settings: dict[str, Any], tools: Tools) -> Result:
    """All methods on a picture and an input, or the peers."""
    problem = data.problem(settings["picture"], settings["side"], reduction=settings["reduction"], gray=False)
    return _run_networks(settings, tools, problem) if "network" in settings else _run_peers(settings, problem)


def _run_peers(settings: dict[str, Any], problem: Problem) -> Result:
    clean, noisy = ((255 * image + LEVEL).astype(np.float32) for image in (problem.clean, problem.noisy))
    outputs: dict[str, np.ndarray] = {"noisy": noisy}
    options = methods.Options(threads=1)
    outputs["nlm"] = methods.PREPARE["nlm"](data.SIGMA, options)(noisy, lambda: clean)[0]
    if settings["bm3d"]:
        outputs["bm3d"] = methods.run("bm3d", noisy, clean, data.SIGMA, options).denoised
    outputs = {name: (output - LEVEL) / 255 for name, output in outputs.items()}
    arrays = {"clean": problem.clean, **outputs}
    return Result(
        {name: problem.psnr(output) for name, output in outputs.items()},
        {name: image.astype(np.float32) for name, image in arrays.items()},
        device="cpu",
    )


def _run_networks(settings: dict[str, Any], tools: Tools, problem: Problem) -> Result:
    from ntkfast.finite import Record, empirical_ntk, train

    side, seed, most = settings["side"], settings["seed"], settings["most_steps"]
    network = architectures.network(settings["network"])
    noise = settings["input"] == "noise"
    x = architectures.noise_channels(side, settings["channels"], seed) if noise else problem.noisy
    steps = analysis.times(most, settings["points"])

    # The exact kernel is that of the very input of the finite network: for noise, of the same draw.
    where = architectures.kernel_device(tools.device)
    exact = NTK(network, x, device=where, channel_axis=-1)
    later = analysis.times(settings["any_time_steps"], settings["points"])
    path = analysis.closed_form(exact, problem.noisy, [*steps, *later])
    rough = nystrom(exact, max(1, round(settings["landmarks"] * side * side)), landmarks="random", rng=seed)
    paths = {
        "exact": path[: len(steps)],
        ANY_TIME: path[len(steps) :],
        "nystrom": analysis.closed_form(rough, problem.noisy, steps),
    }
    if not noise:
        # The refining pass: the kernel of the first result filters the same noisy image.
        first = paths["exact"][int(np.argmax([problem.psnr(z) for z in paths["exact"]]))]
        second = NTK(network, first, device=where, channel_axis=-1)
        paths[REFINED] = analysis.closed_form(second, problem.noisy, steps)
    tools.progress(0.2)

    def module() -> torch.nn.Module:
        colours = problem.noisy.shape[2]
        return architectures.finite_network(
            network, settings["width"], seed, tools.device, in_channels=x.shape[2], out_channels=colours
        )

    def progress(done: int, fraction: float) -> None:
        tools.progress(0.2 + 0.4 * (done + fraction))

    # A narrow network's largest eigenvalue may be well above that of the limit.
    start = empirical_ntk(module(), x, channel_axis=-1)
    largest = max(analysis.found(exact.lambda_max), analysis.largest_eigenvalue(start, EIGENVALUE_TOLERANCE))
    for n, (optimizer, rate) in enumerate((("gd", 1.0 / largest), ("adam", settings["adam_rate"]))):
        trained = train(
            module(),
            x,
            problem.noisy,
            optimizer=optimizer,
            steps=most,
            learning_rate=rate,
            channel_axis=-1,
            record=Record(steps=steps.tolist()),
            progress=partial(progress, n),
        )
        paths[optimizer] = trained.outputs.astype(np.float64)
    values: dict[str, Any] = {"eigenvalue_ratio": largest / analysis.found(exact.lambda_max)}
    outputs = {}
    for name, path in paths.items():
        quality = [problem.psnr(z) for z in path]
        best = int(np.argmax(quality))
        values[name] = quality[best]
        values[f"{name}_steps"] = int((later if name == ANY_TIME else steps)[best])
        outputs[name] = path[best].astype(np.float32)
    values["distance"] = analysis.relative_distance(outputs["gd"], outputs["exact"])
    return Result(values, outputs)
