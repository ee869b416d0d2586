"""The means as bars, and the methods on one picture."""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.architectures import ARCHITECTURES, BLUE, GREEN, INPUT_LABELS, INPUTS, LABELS, ORANGE, PURPLE
from experiments.experiment import Picture, Record
from experiments.table.measure import REFINED
from experiments.table.summary import METHODS, MORE, PEERS, complete, means

COLOURS = {"gd": BLUE, "exact": GREEN, REFINED: GREEN, "nystrom": PURPLE, "adam": ORANGE}
SHOWN = "astronaut"


def figures(records: list[Record]) -> list[Picture]:
    """The means as bars, and the methods on one picture."""
    drawn = [_bars(records)] if complete(records) else []
    shown = [r for r in records if r.settings["picture"] == SHOWN and r.settings.get("seed", 0) == 0]
    return drawn + ([_gallery(shown)] if len(shown) == 1 + len(ARCHITECTURES) * len(INPUTS) else [])


def _bars(records: list[Record]) -> Picture:
    from matplotlib.figure import Figure

    found, names = means(records), complete(records)
    figure = Figure(figsize=(4 * len(ARCHITECTURES), 4.2), layout="constrained")
    axes_row = figure.subplots(1, len(ARCHITECTURES), sharey=True)
    lowest = []
    titles = METHODS | MORE
    bars = {name: titles[name] for name in ("gd", "exact", REFINED, "nystrom", "adam")}
    width = 0.8 / len(bars)
    for axes, network in zip(axes_row, ARCHITECTURES, strict=True):
        for n, (method, title) in enumerate(bars.items()):
            for place, source in enumerate(INPUTS):
                if (method, network, source) not in found:
                    continue
                at = place + (n - (len(bars) - 1) / 2) * width
                mean = found[method, network, source].mean
                look = {"color": COLOURS[method], "hatch": "///" if method == REFINED else "", "edgecolor": "white"}
                axes.bar(at, mean, 0.92 * width, linewidth=0, label=title if place == 0 else None, **look)
                dots = [
                    r.values[method]
                    for r in records
                    if (r.settings.get("network"), r.settings.get("input")) == (network, source)
                    and r.settings["picture"] in names
                ]
                axes.plot([at] * len(dots), dots, "o", color="black", alpha=0.35, markersize=2.5, markeredgewidth=0)
                axes.annotate(
                    f"{mean:.1f}",
                    (at, mean),
                    ha="center",
                    va="bottom",
                    fontsize=8,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.6, "alpha": 0.8},
                )
                lowest += dots
        for (peer, title), style in zip(PEERS.items(), ((0, (1, 1)), "--", "-."), strict=True):
            if (peer,) in found:
                axes.axhline(found[peer,].mean, color="black", linestyle=style, linewidth=1, label=title, zorder=0)
        axes.set_xticks(range(len(INPUTS)), [f"input: {INPUT_LABELS[source]}" for source in INPUTS])
        axes.set_title(LABELS[network])
    axes_row[0].set_ylim(bottom=min(lowest) - 0.5)
    axes_row[0].set_ylabel("PSNR (dB), mean over the pictures")
    axes_row[-1].legend(fontsize=9, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return Picture(
        "table_psnr",
        figure,
        f"PSNR at sigma 25 of 255, mean over {len(names)} pictures (dots: pictures and seeds), each at its best time.",
    )


def _gallery(records: list[Record]) -> Picture:
    from matplotlib.figure import Figure

    peers = next(record for record in records if "network" not in record.settings)
    images = peers.load()
    low, high = images["clean"].min(), images["clean"].max()
    cases = [record for record in records if "network" in record.settings]
    figure = Figure(figsize=(1.75 * (len(METHODS) + 1), 1.95 * len(cases) + 0.3), layout="constrained")
    grid = figure.subplots(len(cases), len(METHODS) + 1)
    left = [("clean", None), *((peer, peers.values[peer]) for peer in PEERS if peer in peers.values)]
    titles = {"clean": "clean", **PEERS}

    def show(axes: Any, image: np.ndarray, title: str) -> None:
        axes.imshow(np.clip((image - low) / (high - low), 0, 1))
        axes.set_title(title, fontsize=9)
        axes.set_xticks([])
        axes.set_yticks([])

    for axes in grid[:, 0]:
        axes.axis("off")
    for axes, (name, value) in zip(grid[:, 0], left, strict=False):
        show(axes, images[name], titles[name] + ("" if value is None else f"\n{value:.1f} dB"))
    for row, record in zip(grid, cases, strict=True):
        outputs = record.load()
        for n, (axes, (method, title)) in enumerate(zip(row[1:], METHODS.items(), strict=True)):
            show(axes, outputs[method], f"{title}\n{record.values[method]:.1f} dB")
            if n == 0:
                axes.set_ylabel(
                    f"{LABELS[record.settings['network']]}\n{INPUT_LABELS[record.settings['input']]}", fontsize=9
                )
    return Picture("table_pictures", figure, f"The methods on *{SHOWN}* at their best times, first seed.")
