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
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import ntkfast as nf
from bench.paper import analysis, follow
from bench.paper.architectures import ARCHITECTURES, COLOURS, LABELS, MARKERS, adam_steps, finite_network
from bench.paper.experiment import PAPER as SAID
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

CONVENTIONS = {"steps": "same number of steps", "loss": "same loss"}

# Of gradient descent, times 1/lambda_max of the exact kernel: small, so that the loss is crossed in small steps and
# narrow networks, whose largest eigenvalue may be twice that of the limit, are stable.
RATE_GD = 0.5
# Of Adam, over c: effective hidden weights have the standard deviation sqrt(2/(9 c)), 0.12 at c = 16, and wide networks
# still take several steps to the loss.
RATE_ADAM = 0.002
STEPS_ADAM = 64  # that all widths are compared at
EARLIER = (4, 16)  # where they are compared too: before, and about when, wide networks reach the loss

# The paper's exponents for hidden weights, and how far a fitted one may be from it.
PAPER = {("gd", "l2"): -0.5, ("gd", "linf"): -1.5, ("adam", "l2"): 0.0, ("adam", "linf"): -1.0}
TOLERANCE = 0.15


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
            record=range(steps + 1),
            progress=tools.progress,
        )
        reached = crossing(training.loss, level)
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
    image = follow.crop(side)
    y = image.noisy.reshape(-1, 1)
    spectrum = analysis.Spectrum(nf.NTK(ARCHITECTURES[architecture], image.noisy, dtype="float64").dense())
    # z_t of all steps by the eigenpairs: |z_t - y|^2 = sum of ((1 - rate lambda/lambda_max)^t v^T y)^2
    left = (1 - rate * spectrum.values / spectrum.values[-1]) ** np.arange(most_steps + 1)[:, None]
    loss = 0.5 * np.square(left * (spectrum.vectors.T @ y)[:, 0]).sum(axis=1)
    reached = crossing(loss, 0.5 * image.noisy.size * image.sigma**2)
    return float(spectrum.values[-1]), most_steps if reached is None else max(1, round(reached))


def kinds(names: Sequence[str]) -> dict[str, list[str]]:
    """Convolutions, named in the order of the network, by kind."""
    return {"first": [names[0]], "hidden": list(names[1:-1]), "last": [names[-1]]}


def combined(changes: Sequence[float], norm: str) -> float:
    """The norm of several layers together, from the norms of each."""
    return float(np.linalg.norm(changes, 2 if norm == "l2" else np.inf))


def crossing(loss: Sequence[float], level: float) -> float | None:
    """Place at which the loss first falls to ``level``, linearly between two; None if it does not.

    With the loss of every step that is the step.
    """
    loss = np.asarray(loss)
    below = np.flatnonzero(loss <= level)
    if not len(below):
        return None
    n = int(below[0])
    return 0.0 if n == 0 else float(n - 1 + (loss[n - 1] - level) / (loss[n - 1] - loss[n]))


def between(values: np.ndarray, step: float) -> float:
    """Value at a step, linearly between two."""
    return float(np.interp(step, np.arange(len(values)), values))


def chosen(records: Sequence[Record], architecture: str, optimizer: str, convention: str) -> list[Record]:
    """Those of an architecture and an optimizer that reached the loss, or the number of steps."""
    return [
        r
        for r in records
        if r.settings["architecture"] == architecture
        and r.settings["optimizer"] == optimizer
        and r.values["change"][convention] is not None
    ]


def changes_of(records: Sequence[Record], convention: str, norm: str, kind: str) -> tuple[list[int], list[float]]:
    """Widths, and changes of all layers of a kind together."""
    layers = [r.values["change"][convention][norm] for r in records]
    changes = [combined([change[name] for name in kinds(list(change))[kind]], norm) for change in layers]
    return [r.settings["width"] for r in records], changes


def law(
    records: Sequence[Record], architecture: str, optimizer: str, convention: str, norm: str, kind: str
) -> PowerLaw | None:
    """The change over the width."""
    return power_law(*changes_of(chosen(records, architecture, optimizer, convention), convention, norm, kind))


def claims(records: list[Record]) -> list[Claim]:
    """The paper's orders of the hidden weights, and the comparison of the optimizers."""
    found = []
    for optimizer, by in OPTIMIZERS.items():
        for norm, word in WORDS.items():
            expected = PAPER[optimizer, norm]
            order = "constant" if expected == 0 else f"of the order c^{expected:g}"
            checks = []
            conventions, compared = CONVENTIONS, "after the same number of steps"
            if optimizer == "adam":
                conventions = {str(EARLIER[-1]): f"after {EARLIER[-1]} steps", "steps": f"after {STEPS_ADAM} steps"}
                conventions["loss"] = CONVENTIONS["loss"]
                compared = f"after {EARLIER[-1]} and after {STEPS_ADAM} steps"
            for convention, when in conventions.items():
                for name, label in LABELS.items():
                    fitted = law(records, name, optimizer, convention, norm, "hidden")
                    if fitted is not None:
                        agrees = abs(fitted.slope - expected) <= TOLERANCE
                        checks.append(Check(f"{label}, {when}: slope {fitted}", agrees))
            found.append(
                Claim(
                    f"Under {by} the change of the hidden weights in {word} is {order} (fitted slope within "
                    f"{TOLERANCE} of {expected:g}; {compared}, and at the same loss).",
                    checks,
                    "weights_hidden",
                    remark(records, optimizer, norm),
                    SAID,
                )
            )
    checks = []
    for name, label in LABELS.items():
        groups = [follow.by_width(chosen(records, name, optimizer, "loss")) for optimizer in OPTIMIZERS]
        common = sorted(set(groups[0]) & set(groups[1]))
        if common:
            widest = common[-1]
            moved = [np.mean(changes_of(group[widest], "loss", "l2", "hidden")[1]) for group in groups]
            ratio = float(moved[1] / moved[0])
            checks.append(Check(f"{label}: {ratio:.1f} times as far at width {widest}", ratio > 1))
    found.append(
        Claim(
            "To the same loss, Adam moves the hidden weights farther than gradient descent does (l2, at the largest "
            "width).",
            checks,
            "weights_hidden",
            source=SAID,
        )
    )
    return found


def remark(records: Sequence[Record], optimizer: str, norm: str) -> str:
    """Why slopes differ from the exponents, where that is known."""
    if (optimizer, norm) == ("gd", "linf"):
        typical, corrected = {}, {}
        for name, label in LABELS.items():
            own = chosen(records, name, "gd", "loss")
            whole = law(records, name, "gd", "loss", "l2", "hidden")
            widths, values = changes_of(own, "loss", "linf", "hidden")
            if whole is not None:
                typical[label] = (
                    f"{whole.slope - 1:.2f}"  # c^2 weights: root mean square = l2 norm / c, times a constant
                )
                corrected[label] = str(power_law(widths, [v / np.log(w) for w, v in zip(widths, values, strict=True)]))
        if not typical:
            return ""
        return (
            "The root mean square of the changes has the slope of l2 less 1, at the same loss: "
            f"{listed(typical)}. The largest of c^2 numbers moves away from it as c grows: a change is made of "
            "products of what comes forward and what comes back, and the largest product of two sets of c normal "
            "variables is of the order log c times the typical one. This makes a slope flatter by 1/log c, which is "
            f"0.24 at c = 64. The slopes of l_inf divided by log c: {listed(corrected)}."
        )
    if (optimizer, norm) == ("adam", "l2"):
        steps = listed({label: steps_law(records, name, "adam") for name, label in LABELS.items()})
        early = []
        for step in EARLIER:
            laws = {label: law(records, name, "adam", str(step), "l2", "hidden") for name, label in LABELS.items()}
            early.append(f"after {step} steps: {listed(laws)}")
        if not steps:
            return ""
        return (
            f"The change is constant while all networks are far from the target ({'; '.join(early)}), since each step "
            "moves each weight by the step size. But the wider the network, the fewer steps it needs to the loss "
            f"(slopes of their number: {steps}): all weights into a hidden unit move with the sign of its output "
            "weight, of size c^-1/2, and the c units together move the output by c^3/2 times the step size, which with "
            "steps of the order 1/c is c^1/2. By then its weights have moved less."
        )
    if (optimizer, norm) == ("adam", "linf"):
        return "As for l2: the wider the network, the fewer steps it needs to the loss."
    return ""


def listed(laws: dict[str, Any]) -> str:
    """The slopes that there are, by architecture."""
    return ", ".join(f"{label} {fitted}" for label, fitted in laws.items() if fitted is not None)


def steps_law(records: Sequence[Record], architecture: str, optimizer: str) -> PowerLaw | None:
    """The number of steps to the loss over the width."""
    own = chosen(records, architecture, optimizer, "loss")
    return power_law([r.settings["width"] for r in own], [r.values["reached"] for r in own])


def figures(records: list[Record]) -> list[Picture]:
    """Changes over width: of the hidden layers, and of the first and last."""
    if not records:
        return []
    return [
        Picture(
            "weights_hidden",
            grid(records, [(convention, "hidden") for convention in CONVENTIONS]),
            "Change of the hidden layers' effective weights over the width, with fitted laws, after the same number of "
            "steps (above) and when the loss has fallen to the noise's energy (below). Gray: the paper's slopes.",
        ),
        Picture(
            "weights_ends",
            grid(records, [("steps", "first"), ("steps", "last")]),
            "The same for the first and the last layer after the same number of steps. The first has a fixed number of "
            "input channels and the last one output channel: their orders are others.",
        ),
    ]


def grid(records: Sequence[Record], rows: Sequence[tuple[str, str]]) -> Figure:
    """Panels: a row for each (convention, kind of layer), a column for each norm."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.0, 4.0 * len(rows)), layout="constrained")
    for panels, (convention, kind) in zip(figure.subplots(len(rows), 2), rows, strict=True):
        for axes, norm in zip(panels, NORMS, strict=True):
            draw(axes, records, convention, norm, kind)
            axes.set_ylabel(f"{NORMS[norm]} norm of the change")
            axes.set_title(f"{KINDS[kind]}, {NORMS[norm]}, {CONVENTIONS[convention]}", fontsize="medium")
            axes.legend(frameon=False, fontsize="x-small", loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def draw(axes: Any, records: Sequence[Record], convention: str, norm: str, kind: str) -> None:
    """Points and fitted laws of all architectures: gradient descent filled, with solid lines, Adam open and dashed."""
    for optimizer, by in OPTIMIZERS.items():
        highest: dict[int, float] = {}
        for name, label in LABELS.items():
            own = chosen(records, name, optimizer, convention)
            if not own:
                continue
            widths, values = changes_of(own, convention, norm, kind)
            for width, value in zip(widths, values, strict=True):
                highest[width] = max(value, highest.get(width, 0.0))
            style = {
                "color": COLOURS[name],
                "marker": MARKERS[name],
                "markersize": 5,
                "markerfacecolor": "white" if optimizer == "adam" else COLOURS[name],
            }
            axes.plot(widths, values, **style, linestyle="none")
            line = "--" if optimizer == "adam" else "-"
            fitted = law(records, name, optimizer, convention, norm, kind)
            if fitted is not None:
                ends = [min(widths), max(widths)]
                axes.plot(ends, [fitted.at(width) for width in ends], color=COLOURS[name], linestyle=line)
            slope = "" if fitted is None else f":\nslope {fitted}"
            axes.plot([], [], **style, linestyle=line, label=f"{by}, {label}{slope}")
        if kind == "hidden" and len(highest) > 1:
            exponent, low, high = PAPER[optimizer, norm], min(highest), max(highest)
            # Above all points.
            start = 1.4 * max(value * (low / width) ** exponent for width, value in highest.items())
            line = "-." if optimizer == "adam" else ":"
            axes.plot([low, high], [start, start * (high / low) ** exponent], color="0.3", linestyle=line)
            axes.plot([], [], color="0.3", linestyle=line, label=f"{by}, the paper:\nslope {exponent:g}")
    follow.logarithmic(axes, sorted({r.settings["width"] for r in records}))


def text(records: list[Record]) -> str:
    """The settings, and all slopes."""
    words = (
        "The picture and the networks are those of part 1; z is the output less that at the start. The networks are "
        f"trained by gradient descent with {RATE_GD:g}/lambda_max of the exact kernel, the same for all widths c, and "
        f"by Adam (0.9, 0.999) with steps of {adam_steps(RATE_ADAM)}. Effective weights are those of the standard "
        "parametrisation, `sqrt(w/(c k^2)) W`. Their change is taken after the same number of steps (with "
        f"gradient descent that at which the closed form reaches the loss, with Adam {STEPS_ADAM}, and "
        f"{EARLIER[-1]}, about when wide networks reach it), and at the same loss, the energy of the noise: "
        "1/2 sum (z - y)^2 = 1/2 d sigma^2, linearly between two steps. Slopes are fitted to all networks, "
        "with the standard error of the regression."
    )
    if not records:
        return words
    missed = [r for r in records if r.values["reached"] is None]
    if missed:
        names = {f"{LABELS[r.settings['architecture']]} by {OPTIMIZERS[r.settings['optimizer']]}" for r in missed}
        words += (
            f"\n\n{len(missed)} of {len(records)} trainings did not reach the loss in the steps allowed and count "
            f"only for the same number of steps: {', '.join(sorted(names))}."
        )
    parts = [words]
    for convention, when in (CONVENTIONS | {str(EARLIER[-1]): f"after {EARLIER[-1]} steps of Adam"}).items():
        rows = []
        for optimizer, by in OPTIMIZERS.items():
            if convention not in CONVENTIONS and optimizer != "adam":
                continue
            for name, label in LABELS.items():
                own = chosen(records, name, optimizer, convention)
                if not own:
                    continue
                known = {"steps": "common_steps", "loss": "reached"}
                taken = [r.values[known[convention]] if convention in known else EARLIER[-1] for r in own]
                steps = f"{min(taken):.0f}" if min(taken) == max(taken) else f"{min(taken):.1f} to {max(taken):.1f}"
                laws = [law(records, name, optimizer, convention, norm, kind) for norm in NORMS for kind in KINDS]
                cells = ["" if fitted is None else str(fitted) for fitted in laws]
                rows.append([f"{by}, {label}", steps, *cells])
            exponents = [f"{PAPER[optimizer, norm]:g}" for norm in NORMS]
            rows.append([f"*the paper, {by}*", "", "", exponents[0], "", "", exponents[1], ""])
        header = ["", "steps", *(f"{word}, {kind}" for word in WORDS.values() for kind in KINDS)]
        parts.append(f"Slopes, {when}:\n\n{table(header, rows)}")
    parts.append(by_layer(records))
    return "\n\n".join(parts)


def by_layer(records: Sequence[Record]) -> str:
    """Table of the slopes of every convolution, at the same loss."""
    rows = []
    for name, label in LABELS.items():
        groups = {optimizer: chosen(records, name, optimizer, "loss") for optimizer in OPTIMIZERS}
        if not any(groups.values()):
            continue
        layers = list(next(r for group in groups.values() for r in group).values["change"]["loss"]["l2"])
        for n, layer in enumerate(layers):
            kind = next(kind for kind, names in kinds(layers).items() if layer in names)
            cells = [layer_law(groups[optimizer], norm, layer) for optimizer in OPTIMIZERS for norm in NORMS]
            rows.append(
                [
                    f"{label}, {n + 1} of {len(layers)} ({kind})",
                    *("" if fitted is None else str(fitted) for fitted in cells),
                ]
            )
    exponents = [f"{PAPER[optimizer, norm]:g}" for optimizer in OPTIMIZERS for norm in NORMS]
    rows.append(["*the paper, hidden*", *exponents])
    header = ["convolution", *(f"{by}, {word}" for by in OPTIMIZERS.values() for word in WORDS.values())]
    return (
        f"Slopes of single convolutions, in the order of the network, {CONVENTIONS['loss']}:\n\n{table(header, rows)}"
    )


def layer_law(records: Sequence[Record], norm: str, layer: str) -> PowerLaw | None:
    """The change of one convolution until the loss over the width."""
    changes = [r.values["change"]["loss"][norm][layer] for r in records]
    return power_law([r.settings["width"] for r in records], changes)


EXPERIMENT = Experiment("weights", "How far the weights move, over the width", 5, units, run, figures, claims, text)
