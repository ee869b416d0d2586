"""How far weights move: orders in the width, under gradient descent and under Adam.

Networks of several widths c are trained on one noisy picture until the loss reaches the energy of the noise,

    L = 1/2 sum (z - y)^2 = 1/2 d sigma^2

by gradient descent with a step size that does not depend on c in the NTK parametrisation, and by Adam with steps of
the effective weights of the order 1/c.  The change of the effective weights, those of the standard parametrisation,
since the start is fitted by a power of c, in l2 (Frobenius norm) and in l_inf (largest magnitude).

Where the orders come from, for hidden weights W (c^2 of them) in a = sqrt(w/(c k^2)) W * h: under gradient descent each
entry of W moves by O(1/c), effective entries by O(c^-3/2), and the l2 norm over c^2 entries is O(c^-1/2).  Adam moves
each effective entry by the step size O(1/c), which is O(1) in l2.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import ntkfast as nf
from bench.paper import follow
from bench.paper.architectures import ARCHITECTURES, COLOURS, LABELS, MARKERS, finite_network
from bench.paper.experiment import Check, Claim, Experiment, Picture, Record, Result, Tools, Unit
from bench.paper.fits import PowerLaw, power_law
from bench.paper.report import table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bench.paper.scales import Scale

OPTIMIZERS = {"gd": "gradient descent", "adam": "Adam"}
KINDS = {"first": "first layer", "hidden": "hidden layers", "last": "last layer"}
NORMS = {"l2": r"$\ell_2$", "linf": r"$\ell_\infty$"}
WORDS = {"l2": "l2", "linf": "l_inf"}

# Of gradient descent, times 1/lambda_max of the exact kernel: small, so that the loss is crossed in small steps and
# kernels of narrow networks, whose largest eigenvalue may be half as large again, are stable.
RATE_GD = 0.5
# Of Adam, over c: effective hidden weights have the standard deviation sqrt(2/(9 c)), 0.12 at c = 16.
RATE_ADAM = 0.02

FIRST_STEPS = 16  # doubled until the loss is reached

# The paper's exponents for hidden weights, and how far a fitted one may be from it.
PAPER = {("gd", "l2"): -0.5, ("gd", "linf"): -1.5, ("adam", "l2"): 0.0, ("adam", "linf"): -1.0}
TOLERANCE = 0.15


def units(scale: Scale) -> list[Unit]:
    """One network and one optimizer each."""
    sizes = scale.weights
    found = []
    for name in ARCHITECTURES:
        for optimizer in OPTIMIZERS:
            for width in sizes.widths:
                for seed in range(sizes.seeds):
                    settings = {
                        "architecture": name,
                        "network": repr(ARCHITECTURES[name]),
                        "picture": follow.PICTURE,
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
    from ntkfast.finite import train

    image = follow.crop(settings["side"])
    level = 0.5 * image.noisy.size * image.sigma**2
    rate = settings["rate"]
    if settings["optimizer"] == "gd":
        rate /= largest_eigenvalue(settings["architecture"], settings["side"])
    steps = min(FIRST_STEPS, settings["most_steps"])
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
            record=range(steps + 1),
            progress=tools.progress,
        )
        reached = crossing(training.loss, level)
        if reached is not None or steps >= settings["most_steps"]:
            break
        steps = min(2 * steps, settings["most_steps"])
    values: dict[str, Any] = {"level": level, "steps": steps, "reached": reached, "loss": training.loss.tolist()}
    if reached is not None:
        values["change"] = {
            norm: {
                kind: between(combined([changes[name] for name in names], norm), reached)
                for kind, names in kinds(list(training.weight_l2)).items()
            }
            for norm, changes in (("l2", training.weight_change_l2), ("linf", training.weight_change_linf))
        }
    return Result(values)


@functools.lru_cache(maxsize=8)
def largest_eigenvalue(architecture: str, side: int) -> float:
    """Of the exact kernel."""
    noisy = follow.crop(side).noisy
    K = nf.NTK(ARCHITECTURES[architecture], noisy, dtype="float64")
    return float(nf.gradient_descent(K, noisy, steps=1, full_output=True)[1].lambda_max)


def kinds(names: Sequence[str]) -> dict[str, list[str]]:
    """Convolutions, named in the order of the network, by kind."""
    return {"first": [names[0]], "hidden": list(names[1:-1]), "last": [names[-1]]}


def combined(changes: Sequence[np.ndarray], norm: str) -> np.ndarray:
    """The norm of several layers together, from the norms of each: shape (steps,)."""
    return np.sqrt(np.sum(np.square(changes), axis=0)) if norm == "l2" else np.max(changes, axis=0)


def crossing(loss: Sequence[float], level: float) -> float | None:
    """Step at which the loss first falls to ``level``, linearly between two steps; None if it does not."""
    loss = np.asarray(loss)
    below = np.flatnonzero(loss <= level)
    if not len(below):
        return None
    n = int(below[0])
    return 0.0 if n == 0 else float(n - 1 + (loss[n - 1] - level) / (loss[n - 1] - loss[n]))


def between(values: np.ndarray, step: float) -> float:
    """Value at a step, linearly between two."""
    return float(np.interp(step, np.arange(len(values)), values))


def chosen(records: Sequence[Record], architecture: str, optimizer: str) -> list[Record]:
    """Those of an architecture and an optimizer that reached the loss."""
    return [
        r
        for r in records
        if r.settings["architecture"] == architecture
        and r.settings["optimizer"] == optimizer
        and r.values["reached"] is not None
    ]


def law(records: Sequence[Record], norm: str, kind: str) -> PowerLaw | None:
    """The change over the width."""
    return power_law([r.settings["width"] for r in records], [r.values["change"][norm][kind] for r in records])


def claims(records: list[Record]) -> list[Claim]:
    """The paper's orders of the hidden weights, and the comparison of the optimizers."""
    found = []
    for optimizer, by in OPTIMIZERS.items():
        for norm, word in WORDS.items():
            expected = PAPER[optimizer, norm]
            order = "constant" if expected == 0 else f"of the order c^{expected:g}"
            laws = {name: law(chosen(records, name, optimizer), norm, "hidden") for name in LABELS}
            found.append(
                Claim(
                    f"Under {by} the change of the hidden weights in {word} is {order} "
                    f"(fitted slope within {TOLERANCE} of {expected:g}).",
                    [
                        Check(f"{LABELS[name]}: slope {fitted}", abs(fitted.slope - expected) <= TOLERANCE)
                        for name, fitted in laws.items()
                        if fitted is not None
                    ],
                    "weights_hidden",
                    REMARKS.get((optimizer, norm), ""),
                )
            )
    checks = []
    for name, label in LABELS.items():
        groups = [follow.by_width(chosen(records, name, optimizer)) for optimizer in OPTIMIZERS]
        common = sorted(set(groups[0]) & set(groups[1]))
        if common:
            widest = common[-1]
            moved = [np.mean([r.values["change"]["l2"]["hidden"] for r in group[widest]]) for group in groups]
            ratio = float(moved[1] / moved[0])
            checks.append(Check(f"{label}: {ratio:.1f} times as far at width {widest}", ratio > 1))
    found.append(
        Claim(
            "To the same loss, Adam moves the hidden weights farther than gradient descent does (l2, at the largest "
            "width).",
            checks,
            "weights_hidden",
        )
    )
    return found


REMARKS = {
    ("gd", "linf"): (
        "The largest of c^2 numbers grows with their count: of numbers of a given spread it is a power of log c larger. "
        "That makes slopes fitted over finite widths flatter than the exponent."
    ),
}


def figures(records: list[Record]) -> list[Picture]:
    """Changes over width: of the hidden layers, and of the first and last."""
    usable = [r for r in records if r.values["reached"] is not None]
    if not usable:
        return []
    return [
        Picture(
            "weights_hidden",
            change_figure(usable, "hidden"),
            "Change of the hidden layers' effective weights when the loss has fallen to the energy of the noise, over "
            "the width, with fitted laws; dotted: the paper's slopes.",
        ),
        Picture(
            "weights_ends",
            ends_figure(usable),
            "The same for the first and the last layer. The first has a fixed number of input channels, the last one "
            "output channel, so that their orders are others.",
        ),
    ]


def change_figure(records: Sequence[Record], kind: str) -> Figure:
    """A panel for each norm; both optimizers in each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 4.6), layout="constrained")
    for axes, norm in zip(figure.subplots(1, 2), NORMS, strict=True):
        draw(axes, records, norm, kind)
        for optimizer in OPTIMIZERS:
            group = [r for r in records if r.settings["optimizer"] == optimizer]
            if group:
                widths = [min(r.settings["width"] for r in group), max(r.settings["width"] for r in group)]
                slope = PAPER[optimizer, norm]
                start = max(r.values["change"][norm][kind] for r in group if r.settings["width"] == widths[0]) * 1.5
                axes.plot(widths, [start, start * (widths[1] / widths[0]) ** slope], color="0.4", linestyle=":")
                axes.annotate(
                    f"paper: {slope:g}", (widths[0], start), color="0.35", fontsize="small", va="bottom", ha="left"
                )
        axes.set_ylabel(f"{NORMS[norm]} norm of the change")
        axes.set_title(f"{KINDS[kind]}, {NORMS[norm]}")
        axes.legend(frameon=False, fontsize="x-small", loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    return figure


def ends_figure(records: Sequence[Record]) -> Figure:
    """Two norms by two layers."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 8.6), layout="constrained")
    for row, kind in zip(figure.subplots(2, 2), ("first", "last"), strict=True):
        for axes, norm in zip(row, NORMS, strict=True):
            draw(axes, records, norm, kind)
            axes.set_ylabel(f"{NORMS[norm]} norm of the change")
            axes.set_title(f"{KINDS[kind]}, {NORMS[norm]}")
            axes.legend(frameon=False, fontsize="x-small", loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=2)
    return figure


def draw(axes: Any, records: Sequence[Record], norm: str, kind: str) -> None:
    """Points and fitted laws of all architectures: gradient descent filled, with solid lines, Adam open and dashed."""
    for optimizer, by in OPTIMIZERS.items():
        for name, label in LABELS.items():
            own = chosen(records, name, optimizer)
            fitted = law(own, norm, kind)
            if not own:
                continue
            widths = [r.settings["width"] for r in own]
            adam = optimizer == "adam"
            axes.plot(
                widths,
                [r.values["change"][norm][kind] for r in own],
                marker=MARKERS[name],
                markersize=5,
                color=COLOURS[name],
                markerfacecolor="white" if adam else COLOURS[name],
                linestyle="none",
                label=f"{by}, {label}" if fitted is None else None,
            )
            if fitted is not None:
                ends = [min(widths), max(widths)]
                axes.plot(
                    ends,
                    [fitted.at(width) for width in ends],
                    color=COLOURS[name],
                    marker=MARKERS[name],
                    markersize=5,
                    markerfacecolor="white" if adam else COLOURS[name],
                    linestyle="--" if adam else "-",
                    label=f"{by}, {label}: {fitted}",
                )
    follow.logarithmic(axes, sorted({r.settings["width"] for r in records}))


def text(records: list[Record]) -> str:
    """The settings, and all slopes."""
    words = (
        "The picture and the networks are those of part 1. They are trained until the loss 1/2 sum (z - y)^2 reaches "
        "the energy of the noise, 1/2 d sigma^2, where z is the output less that at the start: by gradient descent "
        f"with {RATE_GD:g}/lambda_max of the exact kernel, the same for all widths c, and by Adam (0.9, 0.999) with "
        f"{RATE_ADAM:g}/c for the effective weights. The effective weights are those of the standard parametrisation, "
        "`sqrt(w/(c k^2)) W`; their change is taken at the loss itself, linearly between two steps. Slopes are fitted "
        "to all networks, with the standard error of the regression."
    )
    if not records:
        return words
    missed = [r for r in records if r.values["reached"] is None]
    if missed:
        names = sorted(
            {f"{LABELS[r.settings['architecture']]} by {OPTIMIZERS[r.settings['optimizer']]}" for r in missed}
        )
        words += (
            f"\n\n{len(missed)} of {len(records)} trainings did not reach the loss in the steps allowed and are left "
            f"out: {', '.join(names)}."
        )
    rows = []
    for optimizer, by in OPTIMIZERS.items():
        for name, label in LABELS.items():
            own = chosen(records, name, optimizer)
            if not own:
                continue
            taken = [r.values["reached"] for r in own]
            laws = [law(own, norm, kind) for norm in NORMS for kind in KINDS]
            cells = ["" if fitted is None else str(fitted) for fitted in laws]
            rows.append([f"{by}, {label}", f"{min(taken):.0f} to {max(taken):.0f}", *cells])
    rows += [
        [f"*the paper, {by}*", "", "", f"{PAPER[optimizer, 'l2']:g}", "", "", f"{PAPER[optimizer, 'linf']:g}", ""]
        for optimizer, by in OPTIMIZERS.items()
    ]
    header = ["slopes", "steps", *(f"{word}, {kind}" for word in WORDS.values() for kind in KINDS)]
    return f"{words}\n\n{table(header, rows)}"


EXPERIMENT = Experiment("weights", "How far the weights move, over the width", 1, units, run, figures, claims, text)
