"""Changes over the width, PSNRs, weights of a pixel, eigenvectors, pictures."""

from __future__ import annotations

import numpy as np

from experiments import analysis, drawing
from experiments.adam.claims import OPTIMIZER_TITLES, RATES, case_title
from experiments.adam.measure import FAST, OPTIMIZERS, SHOWN, TRAINED
from experiments.adam.summary import KERNELS, Case, by_case, changes
from experiments.architectures import BLUE, GRAY, GREEN, LABELS, ORANGE, PURPLE
from experiments.experiment import Picture, Record

OPTIMIZER_COLOURS = {"gd": BLUE, "adam": ORANGE, FAST: PURPLE}


def figures(records: list[Record]) -> list[Picture]:
    """All that the records suffice for."""
    cases = by_case(records)
    drawn = [_change(records)] if len({record.settings["width"] for record in records}) > 1 else []
    if cases:
        drawn += [_quality(cases), _weights(cases), _eigenvectors(cases), _pictures(cases)]
    return drawn


def _change(records: list[Record]) -> Picture:
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, ScalarFormatter

    figure = Figure(figsize=(5.0 * len(TRAINED), 3.8), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(TRAINED), squeeze=False)[0], TRAINED, strict=True):
        axes.set_title(LABELS[name])
        axes.set_xlabel("width (channels of the hidden layers)")
        for optimizer, marker in zip((*OPTIMIZERS, FAST), "os^", strict=True):
            widths, change = changes(records, name, optimizer)
            if not len(widths):
                continue
            colour = OPTIMIZER_COLOURS[optimizer]
            axes.plot(widths, change, marker, color=colour, alpha=0.5, markersize=5)
            distinct = np.unique(widths)
            mean = [analysis.geometric_mean(change[widths == width]) for width in distinct]
            axes.plot(distinct, mean, color=colour)
            # The line is no fit: exponents stand in the claims.
            rate = f"{RATES[optimizer]:g}/width" if optimizer in RATES else r"$1/\lambda_{max}$"
            label = f"{'Adam' if optimizer in RATES else OPTIMIZER_TITLES[optimizer]}, rate {rate}"
            axes.plot([], [], color=colour, marker=marker, markersize=5, label=label)
            axes.set_xticks(distinct)
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.xaxis.set_minor_formatter(NullFormatter())
        if axes.lines:
            axes.set_xticks(distinct)
            axes.legend(fontsize=9)
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g}%"))
        axes.yaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.3)
        axes.set_ylabel("relative change of the empirical kernel\nuntil the same loss")
    return Picture(
        "adam_change",
        figure,
        "Relative change of the empirical kernel (Frobenius norm) from the start until the loss is the same for all "
        "networks of an architecture: the energy of the noise, or else the lowest that all their trainings reach. Over "
        "the width; noisy image as input, a point for each seed, lines through geometric means.",
    )


def _quality(cases: dict[Case, list[Record]]) -> Picture:
    from matplotlib.figure import Figure

    bars = (
        ("start_filter_psnr", "closed form, kernel at the start", GRAY, ""),
        ("gd_psnr", "trained by gradient descent", BLUE, ""),
        ("gd_filter_psnr", "closed form, kernel after gradient descent", BLUE, "///"),
        ("adam_psnr", "trained by Adam", ORANGE, ""),
        ("adam_filter_psnr", "closed form, kernel after Adam", ORANGE, "///"),
        ("exact_filter_psnr", "closed form, exact kernel", GREEN, ""),
        ("refined_filter_psnr", "closed form, exact kernel, refined", GREEN, "///"),
    )
    figure = Figure(figsize=(12, 4.4), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(bars)
    for n, (key, label, colour, hatch) in enumerate(bars):
        for place, group in enumerate(cases.values()):
            values = [record.values[key] for record in group if key in record.values]
            if not values:
                continue
            at = place + (n - (len(bars) - 1) / 2) * width
            axes.bar(at, np.mean(values), 0.9 * width, color=colour, hatch=hatch, edgecolor="white", linewidth=0.5)
            axes.plot([at] * len(values), values, "_", color="black", markersize=6)
            axes.annotate(f"{np.mean(values):.1f}", (at, max(values)), ha="center", va="bottom", fontsize=7)
        axes.bar(0, 0, color=colour, hatch=hatch, edgecolor="white", label=label)
    noisy = next(iter(cases.values()))[0].values["noisy_psnr"]
    axes.axhline(noisy, color="black", linestyle="--", linewidth=1, label="noisy image")
    keys = {key for key, *_ in bars}
    values = [v for group in cases.values() for record in group for key, v in record.values.items() if key in keys]
    axes.set_ylim(min([noisy, *values]) - 1, max(values) + 1)
    axes.set_xticks(range(len(cases)), [case_title(*case).replace(", ", "\ninput: ") for case in cases])
    axes.set_ylabel("PSNR at the best time (dB)")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return Picture(
        "adam_psnr",
        figure,
        "PSNR, each at its best time. Hatched: the filter in closed form of the kernel that training, or the "
        "refining pass, has left. Dashes: the seeds.",
    )


def _weights(cases: dict[Case, list[Record]]) -> Picture:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.5 * (len(KERNELS) + 2) + 1, 2.45 * len(cases) + 0.4), layout="compressed")
    grid = figure.subplots(len(cases), len(KERNELS) + 2, squeeze=False)
    for row, (case, group) in zip(grid, cases.items(), strict=True):
        arrays = group[0].load()
        clean = drawing.display(arrays["clean"])
        row[0].imshow(clean)
        row[0].plot(arrays["pixel"][1], arrays["pixel"][0], "+", color="black", markersize=9, markeredgewidth=1.5)
        row[0].set_ylabel(case_title(*case).replace(", ", "\n"), fontsize=10)
        for axes, name in zip(row[1:-1], KERNELS, strict=True):
            shown = drawing.draw_weights(axes, clean, arrays[f"{name}_weights"], arrays["pixel"], saturation=1.0)
        before, after = arrays["start_weights"], arrays["adam_weights"]
        drawing.draw_weights(row[-1], clean, after - before, arrays["pixel"], saturation=1.0)
        size = np.abs(after - before).max() / np.abs(before).max()
        row[-1].set_xlabel(f"1 = {size:.1%} of the largest\nat the start", fontsize=9)
    grid[0][0].set_title("clean picture", fontsize=10)
    for axes, title in zip(grid[0][1:-1], KERNELS.values(), strict=True):
        axes.set_title(f"kernel {title}", fontsize=10)
    grid[0][-1].set_title("after Adam - at the start", fontsize=10)
    for axes in grid.flat:
        axes.set_xticks([])
        axes.set_yticks([])
    figure.colorbar(shown, ax=grid, shrink=0.7, pad=0.01).set_label("weight / largest weight of the panel")
    return Picture(
        "adam_affinity",
        figure,
        "Row of the empirical kernel that belongs to one pixel (cross), over the faint picture: what it learns from "
        "each pixel in one step, before training and at the best times. Each panel is over its largest weight; "
        "the last column is the difference, over its own largest, which the line below it compares with the start's.",
    )


def _eigenvectors(cases: dict[Case, list[Record]]) -> Picture:
    from matplotlib.figure import Figure

    names = ("start", "adam")
    columns = SHOWN * len(names)
    figure = Figure(figsize=(1.5 * (columns + 1), 1.75 * len(cases) + 0.6), layout="constrained")
    grid = figure.subplots(len(cases), columns + 1, squeeze=False)
    for place, (row, (case, group)) in enumerate(zip(grid, cases.items(), strict=True)):
        arrays = group[0].load()
        row[0].imshow(arrays["clean"].mean(axis=2), cmap="gray")
        row[0].set_ylabel(case_title(*case).replace(", ", "\n"), fontsize=9)
        for n, name in enumerate(names):
            vectors = arrays[f"{name}_eigenvectors"]
            for m in range(SHOWN):
                axes = row[1 + n * SHOWN + m]
                if m >= len(vectors):
                    axes.axis("off")
                    continue
                size = np.abs(vectors[m]).max()
                axes.imshow(vectors[m], cmap="PuOr_r", vmin=-size, vmax=size)
                share = arrays[f"{name}_eigenvalues"][m] / arrays[f"{name}_eigenvalues"][0]
                axes.set_xlabel(rf"$\lambda/\lambda_1$ = {share:.2g}", fontsize=8)
                if place == 0:
                    axes.set_title(f"{KERNELS[name]}: {m + 1}", fontsize=9)
    grid[0][0].set_title("clean, gray", fontsize=9)
    for axes in grid.flat:
        axes.set_xticks([])
        axes.set_yticks([])
    return Picture(
        "adam_eigenvectors",
        figure,
        "Leading eigenvectors of the empirical kernel (orange and purple: the two signs; below, the eigenvalue over "
        "the largest one) before training and at Adam's best time: what is learnt first.",
    )


def _pictures(cases: dict[Case, list[Record]]) -> Picture:
    from matplotlib.figure import Figure

    shown = {
        "start_output": ("closed form,\nkernel at the start", "start_filter_psnr"),
        "gd_output": ("trained by\ngradient descent", "gd_psnr"),
        "adam_output": ("trained by\nAdam", "adam_psnr"),
        "adam_filter_output": ("closed form,\nkernel after Adam", "adam_filter_psnr"),
    }
    figure = Figure(figsize=(2 * (len(shown) + 2), 2.25 * len(cases) + 0.5), layout="constrained")
    grid = figure.subplots(len(cases), len(shown) + 2, squeeze=False)
    for place, (row, (case, group)) in enumerate(zip(grid, cases.items(), strict=True)):
        arrays, values = group[0].load(), group[0].values
        low, high = arrays["clean"].min(), arrays["clean"].max()
        images = [("clean", "clean", None), ("noisy", "noisy", "noisy_psnr")]
        images += [(key, title, psnr) for key, (title, psnr) in shown.items()]
        for axes, (key, title, psnr) in zip(row, images, strict=True):
            axes.imshow(np.clip((arrays[key] - low) / (high - low), 0, 1))
            axes.set_xticks([])
            axes.set_yticks([])
            if psnr is not None:
                axes.set_xlabel(f"{values[psnr]:.2f} dB", fontsize=10)
            if place == 0:
                axes.set_title(title, fontsize=10)
        row[0].set_ylabel(case_title(*case).replace(", ", "\n"), fontsize=10)
    return Picture(
        "adam_pictures",
        figure,
        "Results at the best times, first seed. The last column is the kernel that Adam has left, applied in closed "
        "form from zero: it stands beside the network that Adam trained.",
    )
