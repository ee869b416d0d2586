"""Experiment ``inputs``: the noisy image or iid noise as the network's input, by the exact kernels of both.

Padding is circular, so that the kernel of noise is a convolution, whose eigenvalues are its transfer function.  With
several resolutions the kernel of noise repeats itself at every step of ``Network.multiple`` pixels only; what that
leaves is measured.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from bench.paper import analysis, architectures, data
from bench.paper.architectures import ARCHITECTURES, INPUT_COLOURS, INPUT_LABELS, INPUTS, LABELS
from bench.paper.experiment import PAPER, Check, Claim, Experiment, Picture, Record, Result, Tools, Unit
from bench.paper.report import table
from ntkfast import NTK

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from bench.paper.scales import Scale

PICTURE, CENTRE = "astronaut", (0.215, 0.44)  # the face
RADIUS = 4  # of the neighbourhood: the square of side 9 around a pixel
POINTS = 61  # of the path over the steps
MOST_STEPS = 100_000
PIXELS = ((0.5, 0.34), (0.78, 0.6))  # whose weights are drawn: shares of the sides
PERCENTILES = (10, 50, 90)  # of the pixels' gains
SATURATION = 0.4  # of the largest weight, where the colours end: the pixel's own is far above the others
LOW = 0.1  # cycles a pixel: frequencies above 0 and up to here are low

# Bounds of the claims.
NON_LOCAL = 0.1  # share of the filter's energy beyond the neighbourhood
NOT_STATIONARY = 0.1  # share of the filter's energy that no convolution has
STATIONARY = 0.01
RISE = 0.02  # of a gain that should fall with the frequency
FALL = 0.1  # of the gain from the low frequencies to 1/2

BOTTLENECK = (
    "An autoencoder without skips makes everything of coarse features: its kernel joins neighbours whatever the input "
    "is, and where the best time comes late, its filter is closer to a low-pass."
)
FULL_RESOLUTION = (
    "Patches of noise around different pixels are orthogonal on average, and so are, but for their means, the features "
    "of all layers at full resolution: Theta is nearly a I + b 1 1^T, and the vanilla CNN's filter keeps the mean and "
    "shrinks all else by one factor, whatever its frequency."
)
GRID = (
    "The coarse grid of the autoencoder does not repeat itself from pixel to pixel: its filter is a convolution for "
    "shifts by two pixels only, and that is what is left of it."
)


def units(scale: Scale) -> list[Unit]:
    """One a network and input."""
    sizes = scale.inputs
    settings = {"side": sizes.side, "reduction": sizes.reduction, "bins": sizes.bins, "points": POINTS}
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
    theta = NTK(network, architectures.limit_input(settings["input"], problem), dtype="float64", device="cpu").dense()
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


def _by_case(records: list[Record]) -> dict[tuple[str, str], Record]:
    return {(record.settings["network"], record.settings["input"]): record for record in records}


def _pairs(records: list[Record]) -> list[tuple[str, Record, Record]]:
    """Network, noisy image, iid noise: those that have both."""
    cases = _by_case(records)
    return [
        (name, cases[name, "image"], cases[name, "noise"])
        for name in ARCHITECTURES
        if {(name, "image"), (name, "noise")} <= cases.keys()
    ]


def claims(records: list[Record]) -> list[Claim]:
    """Non-local with the noisy image, a low-pass with noise, and the better quality of the former."""
    pairs = _pairs(records)
    non_local = [
        Check(
            f"{LABELS[name]}: {image.values['beyond']:.1%} with the noisy image, {noise.values['beyond']:.2%} with "
            "noise",
            image.values["beyond"] >= NON_LOCAL and image.values["beyond"] >= 2 * noise.values["beyond"],
        )
        for name, image, noise in pairs
    ]
    low_pass, adaptive = [], []
    for name, image, noise in pairs:
        gain, frequency = (np.array(noise.values[key]) for key in ("gain", "frequencies"))
        at_low = float(gain[(frequency > 0) & (frequency <= LOW)].mean())
        stationary = noise.values["not_stationary"]
        low_pass.append(
            Check(
                f"{LABELS[name]}: {stationary:.2%} of the filter is no convolution; the gain is {gain[0]:.2f} at "
                f"frequency 0, {at_low:.2f} up to {LOW:g}, {gain[-1]:.2f} at 1/2",
                stationary <= STATIONARY and bool(np.all(np.diff(gain) <= RISE)) and at_low - gain[-1] >= FALL,
            )
        )
        low, high = _spread(image)
        adaptive.append(
            Check(
                f"{LABELS[name]}: {image.values['not_stationary']:.1%} of the filter is no convolution; at a quarter "
                f"cycle a pixel the gains of the pixels lie between {low:.2f} and {high:.2f} (10th and 90th "
                "percentile)",
                image.values["not_stationary"] >= NOT_STATIONARY,
            )
        )
    better = [
        Check(
            f"{LABELS[name]}: {image.values['psnr']:.2f} dB with the noisy image, {noise.values['psnr']:.2f} dB with "
            f"noise (noisy: {noise.values['noisy_psnr']:.2f} dB)",
            image.values["psnr"] > noise.values["psnr"],
        )
        for name, image, noise in pairs
    ]
    return [
        Claim(
            f"With the noisy image as input the filter is non-local: at the best time at least {NON_LOCAL:.0%} of its "
            f"energy (sum of squared weights) lies beyond the neighbourhood of {2 * RADIUS + 1} x {2 * RADIUS + 1} "
            "pixels, and at least twice as much as with noise.",
            non_local,
            "inputs_affinity",
            BOTTLENECK if _failed(non_local, "autoencoder") else "",
            PAPER,
        ),
        Claim(
            f"With iid noise as input the filter is a plain low-pass: a convolution up to {STATIONARY:.0%} of its "
            f"energy, whose gain falls with the frequency, from the low ones (above 0, up to {LOW:g} cycles a pixel) "
            f"to the highest by at least {FALL:g}.",
            low_pass,
            "inputs_transfer",
            " ".join(
                remark
                for name, remark in (("vanilla", FULL_RESOLUTION), ("autoencoder", GRID))
                if _failed(low_pass, name)
            ),
            PAPER,
        ),
        Claim(
            "With the noisy image as input the gain is no function of the frequency alone: at least "
            f"{NOT_STATIONARY:.0%} of the filter's energy is in no convolution.",
            adaptive,
            "inputs_transfer",
            BOTTLENECK if _failed(adaptive, "autoencoder") else "",
        ),
        Claim(
            "The noisy image as input gives the higher PSNR, each at its best time.",
            better,
            "inputs_psnr",
        ),
    ]


def _failed(checks: list[Check], name: str) -> bool:
    return any(check.measured.startswith(LABELS[name]) and not check.passed for check in checks)


def _spread(record: Record) -> tuple[float, float]:
    """10th and 90th percentile of the pixels' gains at the frequency 1/4."""
    ring = int(np.argmin(np.abs(np.array(record.values["frequencies"]) - 0.25)))
    percentiles = record.values["gain_percentiles"]
    return float(percentiles[0][ring]), float(percentiles[-1][ring])


def figures(records: list[Record]) -> list[Picture]:
    """Weights over the picture, transfer functions, PSNR over the steps, the denoised pictures."""
    pairs = _pairs(records)
    if not pairs:
        return []
    return [_affinity(pairs), _transfer(pairs), _path(pairs), _denoised(pairs)]


def _affinity(pairs: list[tuple[str, Record, Record]]) -> Picture:
    from matplotlib.figure import Figure

    count = len(PIXELS)
    figure = Figure(figsize=(2.3 * (2 * count + 1), 2.35 * len(pairs) + 0.6), layout="compressed")
    grid = figure.subplots(len(pairs), 2 * count + 1, squeeze=False)
    colours = None
    for place, (row, (name, image, noise)) in enumerate(zip(grid, pairs, strict=True)):
        arrays = {"image": image.load(), "noise": noise.load()}
        clean = display(arrays["image"]["clean"])
        row[0].imshow(clean)
        for n, (r, c) in enumerate(arrays["image"]["pixels"]):
            row[0].plot(c, r, "+", color="white", markersize=11, markeredgewidth=3.5)
            row[0].plot(c, r, "+", color="black", markersize=10, markeredgewidth=1.5)
            row[0].annotate("AB"[n], (c + 1.2, r - 1.2), color="white", fontsize=12, fontweight="bold")
        row[0].set_ylabel(LABELS[name], fontsize=12)
        for n in range(count):
            for m, (source, record) in enumerate(zip(INPUTS, (image, noise), strict=True)):
                axes = row[1 + 2 * n + m]
                colours = draw_weights(axes, clean, arrays[source]["weights"][n], arrays[source]["pixels"][n])
                axes.set_xlabel(f"whole filter: {record.values['beyond']:.1%} beyond", fontsize=9)
                if place == 0:
                    axes.set_title(f"pixel {'AB'[n]}, input: {INPUT_LABELS[source]}", fontsize=11)
    grid[0][0].set_title("clean picture", fontsize=11)
    for axes in grid.flat:
        axes.set_xticks([])
        axes.set_yticks([])
    bar = figure.colorbar(colours, ax=grid, shrink=0.7, pad=0.01, extend="both")
    bar.set_label("filter weight / largest weight of the pixel")
    return Picture(
        "inputs_affinity",
        figure,
        "Weights of the exact filter at its best time, for two pixels (crosses), over the faint picture; the square "
        "is the neighbourhood. The figure under a panel is of the whole filter, not of the pixel shown: the share of "
        "its energy beyond such squares around all pixels. What it says of the claims stands in 3.1 and 3.2.",
    )


def draw_weights(
    axes: Axes, picture: np.ndarray, weights: np.ndarray, pixel: Any, *, saturation: float = SATURATION
) -> Any:
    """Weights, over the largest of them, on the faint gray picture; returns what a colour scale is made of."""
    import matplotlib
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Rectangle

    gray = picture if picture.ndim == 2 else picture.mean(axis=2)
    axes.imshow(0.6 + 0.4 * gray, cmap="gray", vmin=0, vmax=1)
    values = np.linspace(-1, 1, 255)
    colours = matplotlib.colormaps["RdBu_r"](np.linspace(0, 1, 255))
    colours[:, 3] = np.minimum(1.0, 3 * np.abs(values))
    relative = weights / np.abs(weights).max()
    shown = axes.imshow(relative, cmap=ListedColormap(colours), vmin=-saturation, vmax=saturation)
    axes.autoscale(False)
    side = 2 * RADIUS + 1
    corner = (pixel[1] - side / 2, pixel[0] - side / 2)
    axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor="black", linewidth=0.8))
    axes.plot(pixel[1], pixel[0], "+", color="black", markersize=7, markeredgewidth=1.2)
    return shown


def display(image: np.ndarray) -> np.ndarray:
    """A picture less its mean as values 0 to 1, black and white at the clean extremes of the data."""
    low, high = np.percentile(image, (0.5, 99.5))
    return np.clip((image - low) / ((high - low) or 1.0), 0, 1)


def _transfer(pairs: list[tuple[str, Record, Record]]) -> Picture:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(pairs), 3.8), layout="constrained")
    for axes, (name, *both) in zip(figure.subplots(1, len(pairs), squeeze=False, sharey=True)[0], pairs, strict=True):
        for source, record in zip(INPUTS, both, strict=True):
            frequency, (low, middle, high) = record.values["frequencies"], record.values["gain_percentiles"]
            colour = INPUT_COLOURS[source]
            axes.fill_between(frequency, low, high, color=colour, alpha=0.25, linewidth=0)
            axes.plot(frequency, middle, color=colour, marker="os"[source == "noise"], markersize=4)
            axes.plot([], [], color=colour, marker="os"[source == "noise"], label=INPUT_LABELS[source])
        axes.set_title(LABELS[name])
        axes.set_xlabel("spatial frequency (cycles a pixel)")
        axes.set_xlim(0, 0.5)
        axes.axhline(0, color="black", linewidth=0.6)
        axes.grid(alpha=0.3)
        axes.legend(title="input", loc="upper right")
    figure.axes[0].set_ylabel("gain of a pixel's filter\n(line: median, band: 10% to 90% of pixels)")
    return Picture(
        "inputs_transfer",
        figure,
        "Gain of the exact filter at its best time over the spatial frequency, for every pixel by its own weights. "
        "The line is the median over the pixels, the band has 10% to 90% of them: where the filter is a convolution "
        "there is no band, and the line is its transfer function. Whether it is that of a low-pass, claim 3.2 says.",
    )


def _path(pairs: list[tuple[str, Record, Record]]) -> Picture:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(pairs), 3.6), layout="constrained")
    for axes, (name, *both) in zip(figure.subplots(1, len(pairs), squeeze=False, sharey=True)[0], pairs, strict=True):
        for source, record in zip(INPUTS, both, strict=True):
            arrays, values = record.load(), record.values
            axes.plot(arrays["steps"], arrays["path_psnr"], color=INPUT_COLOURS[source], label=INPUT_LABELS[source])
            axes.plot(
                values["steps"], values["psnr"], marker="os"[source == "noise"], color=INPUT_COLOURS[source], zorder=3
            )
        axes.axhline(
            both[0].values["noisy_psnr"], color=architectures.GRAY, linestyle="--", label="the noisy image itself"
        )
        axes.set_xscale("log")
        axes.set_title(LABELS[name])
        axes.set_xlabel("steps t of gradient descent")
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("PSNR (dB)")
    figure.axes[-1].legend(title="input", loc="lower right", fontsize=9)
    return Picture(
        "inputs_psnr",
        figure,
        "PSNR of the exact filter over the steps of gradient descent, learning rate one over the largest eigenvalue; "
        "the marks are the best times.",
    )


def _denoised(pairs: list[tuple[str, Record, Record]]) -> Picture:
    from matplotlib.figure import Figure

    first = pairs[0][1].load()
    low, high = first["clean"].min(), first["clean"].max()
    figure = Figure(figsize=(2.1 * (len(pairs) + 1), 4.9), layout="constrained")
    grid = figure.subplots(2, len(pairs) + 1, squeeze=False)
    shown = [
        [
            (first["clean"], "clean picture\n"),
            (first["noisy"], f"noisy picture\n{pairs[0][1].values['noisy_psnr']:.1f} dB"),
        ]
    ]
    for name, image, noise in pairs:
        shown.append(
            [
                (
                    record.load()["denoised"],
                    f"{LABELS[name]}\ninput {INPUT_LABELS[source]}\nresult {record.values['psnr']:.1f} dB",
                )
                for source, record in (("image", image), ("noise", noise))
            ]
        )
    for n, column in enumerate(shown):
        for m, (image, title) in enumerate(column):
            grid[m][n].imshow(np.clip((image - low) / (high - low), 0, 1))
            grid[m][n].set_title(title, fontsize=10)
            grid[m][n].axis("off")
    return Picture(
        "inputs_denoised",
        figure,
        "The picture filtered by the exact filters at their best times: above with the noisy image as input, below "
        "with iid noise.",
    )


def text(records: list[Record]) -> str:
    """Settings in words, and the table of measures."""
    paragraph = (
        f"Exact kernels of infinitely wide networks for a colour picture (*{PICTURE}*, averaged down), sigma 25 of "
        "255. Padding is circular: with iid noise as input (of infinitely many channels) the kernel is then a "
        "convolution, with several resolutions up to the grid of the coarsest. *Beyond* and *no convolution* are "
        "shares of the sum of squares of the filter matrix at the best time, which is told by the clean picture.\n\n"
        f"{architectures.DESCRIPTION}"
    )
    rows = [
        [
            f"{LABELS[name]}, {INPUT_LABELS[source]}",
            f"{record.values['psnr']:.2f}",
            f"{record.values['steps']}",
            f"{record.values['beyond']:.2%}",
            f"{record.values['not_stationary']:.2%}",
            f"{record.values['degrees_of_freedom']:.0f}",
        ]
        for (name, source), record in _by_case(records).items()
    ]
    if not rows:
        return paragraph
    side = records[0].settings["side"]
    header = ["network, input", "PSNR (dB)", "best t", f"beyond {2 * RADIUS + 1} x {2 * RADIUS + 1}"]
    header += ["no convolution", f"trace (of {side * side})"]
    size = f"{side} x {side} pixels, means of {records[0].settings['reduction']}^2 of the photograph's:"
    return f"{paragraph}\n\n{size}\n\n{table(header, rows)}"


EXPERIMENT = Experiment(
    name="inputs",
    title="The noisy image or iid noise as input",
    version=2,
    units=units,
    run=run,
    figures=figures,
    claims=claims,
    text=text,
)
