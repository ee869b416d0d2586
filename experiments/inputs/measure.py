"""Experiment ``inputs``: the noisy image or iid noise as the network's input, by the exact kernels of both.

Padding is circular, so that the kernel of noise is a convolution, whose eigenvalues are its transfer function.  With
several resolutions the kernel of noise repeats itself at every step of ``Network.multiple`` pixels only; what that
leaves is measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from experiments import analysis, architectures, data
from experiments.analysis import RADIUS
from experiments.architectures import ARCHITECTURES, INPUTS
from experiments.experiment import Result, Tools, Unit
from ntkfast import NTK

if TYPE_CHECKING:
    from experiments.scales import Scale

PICTURE, CENTRE = "astronaut", (0.215, 0.44)  # the face
POINTS = 61  # those of the path over the steps
MOST_STEPS = 100_000
PIXELS = ((0.5, 0.34), (0.78, 0.6))  # whose weights are drawn: shares of the sides
PERCENTILES = (10, 50, 90)  # those of the pixels' gains


def units(scale: Scale) -> list[Unit]:
    """One a network and input."""
    sizes = scale.inputs
    settings: dict[str, Any] = {"side": sizes.side, "reduction": sizes.reduction, "bins": sizes.bins, "points": POINTS}
    settings |= {"picture": PICTURE, "centre": list(CENTRE), "pixels": [list(pixel) for pixel in PIXELS]}
    settings |= {"radius": RADIUS, "most_steps": MOST_STEPS, "percentiles": list(PERCENTILES)}
    return [
        Unit(
            f"{name}/{source}",
            {"network": name, "layers": repr(architectures.network(name, "circular")), "input": source, **settings},
        )
        for name in ARCHITECTURES
        for source in INPUTS
    ]


def run(settings: dict[str, Any], tools: Tools) -> Result:
    """The kernel, its filter at the best time, and where this acts in space and frequency."""
    side, shape = settings["side"], (settings["side"], settings["side"])
    problem = data.problem(
        settings["picture"], side, reduction=settings["reduction"], centre=tuple(settings["centre"]), gray=False
    )
    network = architectures.network(settings["network"], "circular")
    theta = NTK(
        network, architectures.limit_input(settings["input"], problem), dtype="float64", device="cpu", channel_axis=-1
    ).dense()
    tools.progress(0.2)
    spectrum = analysis.Spectrum(theta)
    tools.progress(0.6)

    steps = analysis.times(settings["most_steps"], settings["points"])
    path = spectrum.filtered(problem.noisy.reshape(side * side, -1), steps).reshape(len(steps), *problem.noisy.shape)
    quality = np.array([problem.psnr(z) for z in path])
    best = int(np.argmax(quality))
    filter_matrix = spectrum.filter_matrix(int(steps[best]))
    gains = analysis.pixel_gains(filter_matrix, shape, settings["bins"])
    pixels = [(round(row * side), round(col * side)) for row, col in settings["pixels"]]
    values = {
        "psnr": float(quality[best]),
        "steps": int(steps[best]),
        "noisy_psnr": problem.psnr(problem.noisy),
        "beyond": analysis.share_beyond(filter_matrix, shape, settings["radius"]),
        "not_stationary": analysis.share_not_stationary(filter_matrix, shape),
        "degrees_of_freedom": float(np.trace(filter_matrix)),
    }
    frequencies = analysis.radial_profile(np.zeros(shape), settings["bins"])[0]
    mean, percentiles = gains.mean(axis=0), np.percentile(gains, settings["percentiles"], axis=0)
    inside = np.isfinite(mean)  # rings without a frequency have no gain
    values |= {
        "frequencies": frequencies[inside].tolist(),
        "gain": mean[inside].tolist(),
        "gain_percentiles": percentiles[:, inside].tolist(),
    }
    arrays = {
        "steps": steps,
        "path_psnr": quality,
        "denoised": path[best],
        "clean": problem.clean,
        "noisy": problem.noisy,
        "pixels": np.array(pixels),
        "weights": np.stack([filter_matrix[row * side + col].reshape(shape) for row, col in pixels]),
    }
    return Result(values, arrays, device="cpu")
