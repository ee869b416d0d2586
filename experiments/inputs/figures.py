"""Weights over the picture, transfer functions, PSNR over the steps, the denoised pictures."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments import architectures
from experiments.architectures import INPUT_COLOURS, INPUT_LABELS, INPUTS, LABELS
from experiments.drawing import display, draw_weights
from experiments.experiment import Picture, Record
from experiments.inputs.measure import PIXELS
from experiments.inputs.summary import Pair, pairs


def figures(records: list[Record]) -> list[Picture]:
    """All of them, of the networks that have both inputs."""
    found = pairs(records)
    return [_affinity(found), _transfer(found), _path(found), _denoised(found)] if found else []


def _affinity(pairs: list[Pair]) -> Picture:
    from matplotlib.figure import Figure

    count = len(PIXELS)
    figure = Figure(figsize=(2.3 * (2 * count + 1), 2.35 * len(pairs) + 0.6), layout="compressed")
    grid = figure.subplots(len(pairs), 2 * count + 1, squeeze=False)
    colours: Any = None
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


def _transfer(pairs: list[Pair]) -> Picture:
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


def _path(pairs: list[Pair]) -> Picture:
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


def _denoised(pairs: list[Pair]) -> Picture:
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
        for m, (picture, title) in enumerate(column):
            grid[m][n].imshow(np.clip((picture - low) / (high - low), 0, 1))
            grid[m][n].set_title(title, fontsize=10)
            grid[m][n].axis("off")
    return Picture(
        "inputs_denoised",
        figure,
        "The picture filtered by the exact filters at their best times: above with the noisy image as input, below "
        "with iid noise.",
    )
