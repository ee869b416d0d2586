"""Gradient descent follows the filter: trained networks of finite width against the closed form of infinite width.

A network f of width c in the NTK parametrisation is trained on one noisy picture y, which is its input too, by gradient
descent with the step size eta = 1/lambda_max of the exact kernel Theta.  Its output less that at the start is compared,
step by step, with

    z_t = (I - (I - eta Theta)^t) y

at the same step: relative distance |f_t - f_0 - z_t| / |z_t| at the t where z_t has the best PSNR.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

import ntkfast as nf
from bench.paper import analysis
from bench.paper.architectures import ARCHITECTURES, COLOURS, DESCRIPTION, LABELS, MARKERS, finite_network
from bench.paper.data import SIGMA, Problem, problem
from bench.paper.experiment import PAPER, Check, Claim, Experiment, Picture, Record, Result, Tools, Unit
from bench.paper.fits import PowerLaw, power_law
from bench.paper.report import table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bench.paper.scales import Scale

PICTURE = "chelsea"
CENTRE = (0.4, 0.5)

SLOPES = (-0.6, -0.4)  # bounds on the slope of the distance; -1/2 in theory
DISTANCE = 0.05  # bound on the relative distance at WIDTH, or the largest width if that was not run
WIDTH = 1024
PSNR_GAP = 0.25  # dB; bound on the difference of the PSNRs there
# How far above 1/sqrt(n) the distance of the mean of n networks may be, over that of single ones.  Of two independent
# errors of some ten degrees of freedom it scatters by 0.1; four errors that are the same by half have 0.79, not 0.5.
MEAN_EXCESS = 0.15

# Halve the step size until it is below this over the largest eigenvalue of the network's own kernel at the start; at 2
# gradient descent diverges, and the kernel still moves.
STABLE = 1.5

CURVE_POINTS = 24  # recorded steps
BEYOND = 3.0  # the curves go on to this many times the best t


def crop(side: int) -> Problem:
    """The picture of the finite networks."""
    return problem(PICTURE, side, centre=CENTRE)


def units(scale: Scale) -> list[Unit]:
    """One network each."""
    sizes = scale.follow
    found = []
    for name, network in ARCHITECTURES.items():
        for width, seeds in sizes.networks:
            for seed in range(seeds):
                settings = {
                    "architecture": name,
                    "network": repr(network),
                    "picture": PICTURE,
                    "side": sizes.side,
                    "width": width,
                    "seed": seed,
                    "most_steps": sizes.most_steps,
                    "curve": width <= sizes.widest_curve,
                }
                found.append(Unit(f"{name}/width={width}/seed={seed}", settings))
    return found


def run(settings: dict[str, Any], tools: Tools) -> Result:
    """Train one network, and compare it with the closed form."""
    from ntkfast.finite import train

    image = crop(settings["side"])
    K, spectrum, best = closed_form(settings["architecture"], settings["side"], settings["most_steps"])
    lambda_max = float(spectrum.values[-1])
    last = min(round(BEYOND * best), settings["most_steps"]) if settings["curve"] else best
    # Without a curve nothing else is recorded: norms of a wide network's weights take as long as a step.
    between = np.geomspace(1, max(last, 1), CURVE_POINTS).round().astype(int).tolist() if settings["curve"] else []
    times = sorted({0, best, *between})

    module = finite_network(ARCHITECTURES[settings["architecture"]], settings["width"], settings["seed"], tools.device)
    own = largest_eigenvalue(module, image.noisy, spectrum.vectors[:, -1])
    # The least n >= 0 with own / (2^n lambda_max) <= STABLE.
    halvings = max(0, math.ceil(math.log2(own / (STABLE * lambda_max))))
    factor = 2**halvings
    rate = 1 / (factor * lambda_max)
    training = train(
        module,
        image.noisy,
        image.noisy,
        steps=factor * times[-1],
        learning_rate=rate,
        record=[factor * t for t in times],
        progress=tools.progress,
    )
    # With a smaller step size the closed form takes it too, and as many more steps.
    exact = nf.gradient_descent(K, image.noisy, steps=list(training.steps), learning_rate=rate)
    at = times.index(best)
    values = {
        "noisy_psnr": image.psnr(image.noisy),
        "best_step": best,
        "cut": best == settings["most_steps"],
        "lambda_max": lambda_max,
        "own_lambda_max": own,
        "halvings": halvings,
        "distance": distance(training.outputs[at], exact[at]),
        "direction": written(training.outputs[at] - exact[at]),
        "times": times,
        "psnr": [image.psnr(z) for z in training.outputs],
        "exact_psnr": [image.psnr(z) for z in exact],
    }
    return Result(values)


@functools.lru_cache(maxsize=8)
def closed_form(architecture: str, side: int, most_steps: int) -> tuple[nf.NTK, analysis.Spectrum, int]:
    """The exact kernel, its eigenpairs, and the step up to ``most_steps`` of the best PSNR.

    All steps by the eigenpairs of the dense kernel, in milliseconds where Lanczos took seconds for the errors of each.
    """
    image = crop(side)
    K = nf.NTK(ARCHITECTURES[architecture], image.noisy, dtype="float64")
    spectrum = analysis.Spectrum(K.dense())
    path = spectrum.filtered(image.noisy.reshape(-1, 1), np.arange(most_steps + 1))
    return K, spectrum, int(np.argmax([image.psnr(z.reshape(image.noisy.shape)) for z in path]))


def largest_eigenvalue(module: Any, x: np.ndarray, start: np.ndarray) -> float:
    """That of the network's tangent kernel at its present weights, to a per cent.

    From the exact kernel's leading eigenvector as the start, few products will do.
    """
    from scipy.sparse.linalg import eigsh

    from ntkfast.finite import empirical_ntk

    K = empirical_ntk(module, x)
    v0 = start.astype(K.dtype)
    return float(eigsh(K, 1, which="LA", ncv=4, tol=0.01, v0=v0, return_eigenvectors=False)[0])


def distance(z: np.ndarray, exact: np.ndarray) -> float:
    """|z - exact| / |exact|."""
    return float(np.linalg.norm(z - exact) / np.linalg.norm(exact))


def written(error: np.ndarray) -> str:
    """The direction of an error, one whole number for each pixel, of the order 100: the mean over networks needs it."""
    size = float(np.sqrt(np.mean(np.square(error)))) or 1.0
    return " ".join(str(round(100 * value / size)) for value in error.ravel().tolist())


def errors(records: Sequence[Record]) -> np.ndarray:
    """(output - exact) / |exact| of networks, shape (n, d), from their distances and directions."""
    directions = np.array([np.array(record.values["direction"].split(), dtype=float) for record in records])
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    distances = np.array([[record.values["distance"]] for record in records])
    return np.asarray(distances * directions / np.where(lengths == 0, 1.0, lengths))


def by_width(records: Sequence[Record]) -> dict[int, list[Record]]:
    """Records of one architecture, by ascending width."""
    widths = sorted({record.settings["width"] for record in records})
    return {width: [r for r in records if r.settings["width"] == width] for width in widths}


def of(records: Sequence[Record], architecture: str) -> list[Record]:
    """Those of one architecture."""
    return [record for record in records if record.settings["architecture"] == architecture]


def law(records: Sequence[Record]) -> PowerLaw | None:
    """The distance over the width, for the records of one architecture."""
    return power_law([r.settings["width"] for r in records], [r.values["distance"] for r in records])


def mean_distance(records: Sequence[Record]) -> float:
    """Length of the mean of the errors of several networks of one width.

    With one step size this is the distance of the mean of their outputs; with different ones the closed forms differ by
    little.
    """
    return float(np.linalg.norm(errors(records).mean(axis=0)))


def common_share(records: Sequence[Record]) -> float:
    """What part of the squared distance n networks of one width have in common: an estimate without bias.

    With errors e_i = b + r_i, r_i independent and of mean zero, E |mean e|^2 = |b|^2 + E |r|^2 / n, so that
    (n |mean e|^2 - mean |e|^2) / (n - 1) has the expectation |b|^2.  By chance it may be below zero.
    """
    n = len(records)
    squared = float(np.mean([record.values["distance"] ** 2 for record in records]))
    return (n * mean_distance(records) ** 2 - squared) / (n - 1) / squared


def judged_width(records: Sequence[Record]) -> int:
    """1024 if that was run, else the largest."""
    widths = [record.settings["width"] for record in records]
    return WIDTH if WIDTH in widths else max(widths)


def root_mean_square(numbers: Sequence[float]) -> float:
    """sqrt(mean of squares)."""
    return float(np.sqrt(np.mean(np.square(numbers))))


def claims(records: list[Record]) -> list[Claim]:
    """What must be shown: the slope, the distance, the mean over seeds, the PSNR."""
    slopes, near, means, gaps, expected = [], [], [], [], []
    for name, label in LABELS.items():
        own = of(records, name)
        fitted = law(own)
        if fitted is not None:
            ends = fitted.interval()
            between = "" if ends is None else f", 95 % interval {ends[0]:.2f} to {ends[1]:.2f}"
            slopes.append(Check(f"{label}: slope {fitted}{between}", SLOPES[0] <= fitted.slope <= SLOPES[1]))
        if not own:
            continue
        width = judged_width(own)
        group = by_width(own)[width]
        found = root_mean_square([r.values["distance"] for r in group])
        count = f"{len(group)} network{'s' if len(group) > 1 else ''}"
        near.append(Check(f"{label}: {100 * found:.1f} % at width {width} ({count})", found <= DISTANCE))
        if width != WIDTH and fitted is not None:
            expected.append(f"{label} {100 * fitted.at(WIDTH):.1f} %")
        gap = float(np.mean([at_best(r, "psnr") - at_best(r, "exact_psnr") for r in group]))
        gaps.append(Check(f"{label}: {gap:+.2f} dB at width {width}", abs(gap) <= PSNR_GAP))
        mean = mean_check(label, by_width(own))
        if mean is not None:
            means.append(mean)
    return [
        Claim(
            "Gradient descent follows the filter: the relative distance of the trained network to the closed form at "
            "the best step falls with the width, here tested as one over its square root "
            f"(fitted slope between {SLOPES[0]} and {SLOPES[1]}).",
            slopes,
            "follow_distance",
            source=PAPER,
        ),
        Claim(
            f"At width {WIDTH}, or the largest that was run, the distance is at most {100 * DISTANCE:.0f} %.",
            near,
            "follow_distance",
            f"By the fitted laws, the distance at width {WIDTH} would be: {', '.join(expected)}." if expected else "",
        ),
        Claim(
            "What is left is random: the distance of the mean of the outputs of n networks is 1/sqrt(n) of that of "
            f"single ones, as for independent errors, or at most {MEAN_EXCESS:g} above that, at every width that has "
            "several networks.",
            means,
            "follow_distance",
        ),
        Claim(
            f"At that width the PSNR at the best step is within {PSNR_GAP} dB of the closed form's.",
            gaps,
            "follow_psnr",
        ),
    ]


def mean_check(label: str, groups: dict[int, list[Record]]) -> Check | None:
    """The mean of the outputs against independent errors, at all widths of an architecture; None without any."""
    several = {width: group for width, group in groups.items() if len(group) > 1}
    if not several:
        return None
    found, passed = [], True
    for width, group in several.items():
        ratio = mean_distance(group) / root_mean_square([r.values["distance"] for r in group])
        passed &= ratio <= len(group) ** -0.5 + MEAN_EXCESS
        found.append(f"{ratio:.2f} at width {width} ({len(group)} networks, expected {len(group) ** -0.5:.2f})")
    share = float(np.mean([common_share(group) for group in several.values()]))
    single = ", ".join(str(width) for width, group in groups.items() if len(group) == 1)
    return Check(
        f"{label}: of the distance of single networks {', '.join(found)}"
        + (f"; one network only at width {single}" if single else "")
        + f"; common to all networks of a width, estimated without bias: {100 * share:.0f} % of the squared distance, "
        "mean over the widths",
        passed,
    )


def at_best(record: Record, curve: str) -> float:
    """A curve's value at the best step."""
    return float(record.values[curve][record.values["times"].index(record.values["best_step"])])


def figures(records: list[Record]) -> list[Picture]:
    """Distance over width, and PSNR over steps."""
    if not records:
        return []
    side, n = records[0].settings["side"], max(len(g) for name in LABELS for g in by_width(of(records, name)).values())
    return [
        Picture(
            "follow_distance",
            distance_figure(records),
            "Relative distance between the output of the network trained by gradient descent and the closed form, at "
            f"the step where the closed form has its best PSNR, over the width; {side} x {side} pixels, up to {n} "
            "networks of each width. Filled: single networks, with the fitted law; open: the mean of their outputs.",
        ),
        Picture(
            "follow_psnr",
            psnr_figure(records),
            "PSNR over the steps of gradient descent: the closed form (black) and the trained networks, the mean over "
            "the networks of a width. The vertical line is the closed form's best step.",
        ),
    ]


def distance_figure(records: Sequence[Record]) -> Figure:
    """Log-log plot of the distance over the width."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.2, 4.4), layout="constrained")
    axes = figure.subplots()
    seen = set()
    for name, label in LABELS.items():
        groups = by_width(of(records, name))
        style = {"color": COLOURS[name], "marker": MARKERS[name], "linestyle": "none"}
        points = [(width, r.values["distance"]) for width, group in groups.items() for r in group]
        fitted = law(of(records, name))
        if not points:
            continue
        seen.update(groups)
        axes.plot(*zip(*points, strict=True), markersize=5, alpha=0.55, **style)
        if fitted is not None:
            ends = [min(groups), max(groups)]
            axes.plot(ends, [fitted.at(w) for w in ends], color=COLOURS[name], label=f"{label}: slope {fitted}")
        means = [(width, mean_distance(group)) for width, group in groups.items() if len(group) > 1]
        if means:
            axes.plot(*zip(*means, strict=True), markersize=7, markerfacecolor="white", **style)
    low, high = min(seen), max(seen)
    reference = max(r.values["distance"] for r in records) * 1.25
    axes.plot(
        [low, high], [reference, reference * (high / low) ** -0.5], color="0.5", linestyle=":", label="slope -1/2"
    )
    axes.axhline(DISTANCE, color="0.5", linewidth=0.8, linestyle="--")
    axes.annotate("5 %", (low, DISTANCE), color="0.35", va="bottom")
    for marker, face, text in (("o", "0.4", "single networks"), ("o", "white", "mean of their outputs")):
        axes.plot([], [], marker=marker, color="0.4", markerfacecolor=face, linestyle="none", label=text)
    logarithmic(axes, sorted(seen))
    axes.set_ylabel(r"relative distance $\|z_{network}-z_{NTK}\|\,/\,\|z_{NTK}\|$")
    axes.set_title("Trained network against its closed form, best step")
    figure.legend(loc="outside right upper", frameon=False, fontsize="small")
    return figure


def logarithmic(axes: Any, widths: Sequence[int]) -> None:
    """Both axes logarithmic; the widths as whole numbers, other ticks in plain decimals."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(widths, [str(width) for width in widths])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: decimal(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("width c (channels of each hidden layer)")
    axes.grid(alpha=0.25)


def decimal(value: float) -> str:
    """A power of ten times 1, 2 or 5 in plain decimals, as in ``0.00005``; far from 1 with an exponent."""
    if not 1e-6 <= abs(value) < 1e6:
        return f"{value:.0e}"
    return f"{value:.6f}".rstrip("0").rstrip(".")


def psnr_figure(records: Sequence[Record]) -> Figure:
    """A panel for each architecture."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    names = [name for name in LABELS if of(records, name)]
    widths = sorted({record.settings["width"] for record in records if record.settings["curve"]})
    shown = widths[:: max(1, math.ceil(len(widths) / 4))]
    if widths:
        shown = sorted({*shown[: 3 if len(shown) > 3 else None], widths[-1]})
    shades = dict(zip(shown, colormaps["viridis_r"](np.linspace(0.15, 0.85, max(len(shown), 2))), strict=False))
    figure = Figure(figsize=(3.6 * len(names) + 0.6, 3.6), layout="constrained")
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(names), sharey=True)), names, strict=True):
        groups = by_width([r for r in of(records, name) if r.settings["curve"]])
        for width in shown:
            if width in groups:
                curve = np.mean([r.values["psnr"] for r in groups[width]], axis=0)
                axes.plot(groups[width][0].values["times"][1:], curve[1:], color=shades[width], label=f"width {width}")
        longest = max(of(records, name), key=lambda r: r.values["times"][-1]).values
        axes.plot(longest["times"][1:], longest["exact_psnr"][1:], "k--", linewidth=1.8, label="closed form (NTK)")
        axes.axvline(longest["best_step"], color="0.6", linewidth=0.8)
        axes.axhline(longest["noisy_psnr"], color="0.6", linewidth=0.8, linestyle=":")
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel("step of gradient descent")
        axes.set_title(LABELS[name])
        axes.grid(alpha=0.25)
        end = (longest["times"][-1], longest["noisy_psnr"])
        axes.annotate("noisy picture", end, color="0.35", fontsize="small", va="bottom", ha="right")
        if name == names[0]:
            axes.set_ylabel("PSNR (dB)")
            axes.legend(frameon=False, fontsize="small")
    return figure


def text(records: list[Record]) -> str:
    """The settings and a table of the distances."""
    words = (
        f"The picture is a part of *{PICTURE}*, averaged down by 4 and in gray, with noise of standard deviation "
        f"{SIGMA:g} of 255; its mean is subtracted. The noisy picture is input and target. Networks, in the NTK "
        f"parametrisation, He variances, without biases, float32:\n\n{DESCRIPTION}\n\n"
        "They are trained by gradient descent with the step size 1/lambda_max of the exact kernel, and their output "
        "counts less that at the start. The closed form is `gradient_descent(NTK(...), y, steps=t)` with the same step "
        "size, in float64; the best step is that of its best PSNR, an oracle."
    )
    if not records:
        return words
    halved = sorted({record.settings["width"] for record in records if record.values["halvings"]})
    if halved:
        count = sum(record.values["halvings"] > 0 for record in records)
        words += (
            f"\n\nIn {count} of {len(records)} networks (widths {', '.join(map(str, halved))}) the kernel's largest "
            f"eigenvalue at the start was more than {STABLE} times lambda_max; there the step size was halved until it "
            "was not, for the closed form too, with as many more steps."
        )
    widths = sorted({record.settings["width"] for record in records})
    rows = []
    for name, label in LABELS.items():
        own = of(records, name)
        if not own:
            continue
        groups, best = by_width(own), own[0].values
        step = f"{best['best_step']}{' (the last allowed)' if best['cut'] else ''}"
        cells = [
            f"{100 * root_mean_square([r.values['distance'] for r in groups[w]]):.1f}" if w in groups else ""
            for w in widths
        ]
        means = [f"{100 * mean_distance(groups[w]):.1f}" if len(groups.get(w, ())) > 1 else "" for w in widths]
        rows.append([label, step, f"{at_best(own[0], 'exact_psnr'):.2f}", *cells])
        rows.append(["mean of the outputs", "", "", *means])
    header = ["network", "best step", "PSNR (dB)", *(f"c = {width}" for width in widths)]
    noisy = records[0].values["noisy_psnr"]
    return (
        f"{words}\n\nRelative distance at the best step in per cent, root mean square over the networks, and that of "
        f"the mean of their outputs; PSNR of the closed form, where the noisy picture has {noisy:.2f} dB:\n\n"
        f"{table(header, rows)}"
    )


EXPERIMENT = Experiment("follow", "Gradient descent follows the filter", 2, units, run, figures, claims, text)
