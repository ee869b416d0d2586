"""Experiment ``table``: trained networks and filters on nine pictures, beside non-local means and CBM3D."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.paper import analysis, architectures, data
from bench.paper.architectures import ARCHITECTURES, BLUE, GREEN, INPUT_LABELS, INPUTS, LABELS, ORANGE, PURPLE
from bench.paper.data import Problem
from bench.paper.experiment import PAPER as SAID
from bench.paper.experiment import Check, Claim, Experiment, Picture, Record, Result, Tools, Unit
from bench.paper.report import last_allowed, table
from bench.quality import methods, pictures
from ntkfast import NTK, nystrom

if TYPE_CHECKING:
    import torch

    from bench.paper.scales import Scale

METHODS = {
    "gd": "gradient descent",
    "exact": "NTK, exact",
    "nystrom": "NTK, Nystrom",
    "adam": "Adam",
}
ANY_TIME, REFINED = "exact_any_time", "refined"
MORE = {ANY_TIME: "NTK, exact, any t", REFINED: "NTK, exact, refined"}  # further rows of the table
PEERS = {"noisy": "noisy image", "nlm": "non-local means", "bm3d": "CBM3D"}
COLOURS = {"gd": BLUE, "exact": GREEN, REFINED: GREEN, "nystrom": PURPLE, "adam": ORANGE}

POINTS = 61  # recorded steps of a training, and steps of a closed form
EIGENVALUE_TOLERANCE = 0.01
LEVEL = 128.0  # what the peers see as the mean of the picture, whose values are 0 to 255
SHOWN = "astronaut"

# Reported on the picture House (PSNR in dB) by Tachella, Tang, Davies, CVPR 2021; noise level, kernel sizes and widths
# are not known here.
PAPER: dict[tuple[str, str, str], float] = {
    ("gd", "autoencoder", "image"): 24.7,
    ("gd", "vanilla", "image"): 28.0,
    ("nystrom", "vanilla", "image"): 28.9,
    ("adam", "autoencoder", "image"): 31.1,
    ("adam", "vanilla", "image"): 28.3,
    ("gd", "autoencoder", "noise"): 16.4,
    ("gd", "vanilla", "noise"): 21.6,
    ("nystrom", "vanilla", "noise"): 15.3,
    ("adam", "autoencoder", "noise"): 31.0,
    ("adam", "vanilla", "noise"): 21.6,
}

# Bounds of the claims.
SAME = 0.5  # dB between gradient descent and the exact kernel
CONCORDANT = 0.9  # share of the pairs of the paper's cases that are ordered as there


def units(scale: Scale) -> list[Unit]:
    """One a picture, network, input and seed; and one a picture for the peers."""
    sizes = scale.table
    part = {"side": sizes.side, "reduction": sizes.reduction}
    # Where CBM3D is installed later, the unit's settings are others, and it is run again.
    bm3d = sizes.peers and (methods.BM3D_ENVIRONMENT / "requirements.json").exists()
    names = list(pictures.TEST)[: sizes.pictures]
    found = [Unit(f"{name}/peers", {"picture": name, "bm3d": bm3d, **part}) for name in names]
    settings = {"most_steps": sizes.most_steps, "points": POINTS, "any_time_steps": sizes.any_time_steps}
    settings |= {"landmarks": sizes.landmarks, "channels": architectures.NOISE_CHANNELS, **part}
    for seed in range(sizes.seeds):
        for name in names:
            for network in ARCHITECTURES:
                case = {"picture": name, "network": network, "layers": repr(architectures.network(network))}
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
    outputs = {"noisy": noisy}
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
    from ntkfast.finite import empirical_ntk, train

    side, seed, most = settings["side"], settings["seed"], settings["most_steps"]
    network = architectures.network(settings["network"])
    noise = settings["input"] == "noise"
    x = architectures.noise_channels(side, settings["channels"], seed) if noise else problem.noisy
    steps = analysis.times(most, settings["points"])

    # The exact kernel is that of the very input of the finite network: for noise, of the same draw.
    where = architectures.kernel_device(tools.device)
    exact = NTK(network, x, device=where)
    later = analysis.times(settings["any_time_steps"], settings["points"])
    path = analysis.closed_form(exact, problem.noisy, [*steps, *later])
    rough = nystrom(exact, max(1, round(settings["landmarks"] * side * side)), landmarks="random", seed=seed)
    paths = {
        "exact": path[: len(steps)],
        ANY_TIME: path[len(steps) :],
        "nystrom": analysis.closed_form(rough, problem.noisy, steps),
    }
    if not noise:
        # The refining pass: the kernel of the first result filters the same noisy image.
        first = paths["exact"][int(np.argmax([problem.psnr(z) for z in paths["exact"]]))]
        second = NTK(network, first, device=where)
        paths[REFINED] = analysis.closed_form(second, problem.noisy, steps)
    tools.progress(0.2)

    def module() -> torch.nn.Module:
        colours = problem.noisy.shape[2]
        return architectures.finite_network(
            network, settings["width"], seed, tools.device, in_channels=x.shape[2], out_channels=colours
        )

    # A narrow network's largest eigenvalue may be well above that of the limit.
    start = empirical_ntk(module(), x)
    largest = max(float(exact.lambda_max), analysis.largest_eigenvalue(start, EIGENVALUE_TOLERANCE))
    for n, (optimizer, rate) in enumerate((("gd", 1.0 / largest), ("adam", settings["adam_rate"]))):
        trained = train(
            module(),
            x,
            problem.noisy,
            optimizer=optimizer,
            steps=most,
            learning_rate=rate,
            record=steps.tolist(),
            progress=lambda fraction, n=n: tools.progress(0.2 + 0.4 * (n + fraction)),
        )
        paths[optimizer] = trained.outputs.astype(np.float64)
    values: dict[str, Any] = {"eigenvalue_ratio": largest / float(exact.lambda_max)}
    outputs = {}
    for name, path in paths.items():
        quality = [problem.psnr(z) for z in path]
        best = int(np.argmax(quality))
        values[name] = quality[best]
        values[f"{name}_steps"] = int((later if name == ANY_TIME else steps)[best])
        outputs[name] = path[best].astype(np.float32)
    values["distance"] = analysis.relative_distance(outputs["gd"], outputs["exact"])
    return Result(values, outputs)


# --- Means --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Mean:
    """Mean of a method's figures over pictures and seeds, and their spread.

    Attributes
    ----------
    mean : float
        Over the pictures of the means over their seeds.
    pictures : float
        Standard deviation over the pictures of these means; nan with one picture.
    seeds : float
        Standard deviation over the seeds of a picture, root of the mean square over the pictures; nan with one seed.
    """

    mean: float
    pictures: float
    seeds: float


def averaged(values: Mapping[str, Sequence[float]]) -> Mean:
    """Mean and spread of figures, given by picture for each seed."""
    means = [float(np.mean(of_seeds)) for of_seeds in values.values()]
    variances = [float(np.var(of_seeds, ddof=1)) for of_seeds in values.values() if len(of_seeds) > 1]
    return Mean(
        float(np.mean(means)),
        float(np.std(means, ddof=1)) if len(means) > 1 else float("nan"),
        float(np.sqrt(np.mean(variances))) if variances else float("nan"),
    )


def complete(records: Sequence[Record]) -> list[str]:
    """Pictures that have a result of every network, input and seed, and of the peers: all means are over these."""
    seeds = {record.settings["seed"] for record in records if "network" in record.settings}
    needed = {(network, source, seed) for network in ARCHITECTURES for source in INPUTS for seed in seeds}
    found: dict[str, set[Any]] = {}
    for record in records:
        case = tuple(record.settings.get(key) for key in ("network", "input", "seed"))
        found.setdefault(record.settings["picture"], set()).add(case)
    needed.add((None, None, None))
    return [name for name, cases in found.items() if seeds and needed <= cases]


def means(records: Sequence[Record]) -> dict[tuple[str, ...], Mean]:
    """Means by (method, network, input), and by (peer,)."""
    names = complete(records)
    values: dict[tuple[str, ...], dict[str, list[float]]] = {}
    for record in records:
        settings = record.settings
        if settings["picture"] not in names:
            continue
        if "network" in settings:
            measured = [name for name in (*METHODS, *MORE, "distance") if name in record.values]
            keys = [(name, settings["network"], settings["input"]) for name in measured]
        else:
            keys = [(peer,) for peer in PEERS if peer in record.values]
        for key in keys:
            values.setdefault(key, {}).setdefault(settings["picture"], []).append(record.values[key[0]])
    # A peer that was left out for some of the pictures has no mean that compares with the others.
    return {key: averaged(of_key) for key, of_key in values.items() if set(of_key) == set(names)}


def discordant(ours: Mapping[Any, float], theirs: Mapping[Any, float]) -> tuple[list[tuple[Any, Any]], int]:
    """Pairs of cases that the two order in different ways, and the number of all pairs but those tied in ``theirs``."""
    pairs = [(a, b) for a, b in combinations(theirs, 2) if theirs[a] != theirs[b]]
    return [(a, b) for a, b in pairs if (ours[a] > ours[b]) != (theirs[a] > theirs[b])], len(pairs)


# --- The report ---------------------------------------------------------------------------------------------------


def claims(records: list[Record]) -> list[Claim]:
    """The order of the inputs, of Adam and gradient descent, of this and the kernel, and that of the paper's cases."""
    found = means(records)
    by_input, adam, same, refined, order = [], [], [], [], []
    if complete(records):
        for method, title in (("gd", METHODS["gd"]), (ANY_TIME, MORE[ANY_TIME])):
            for network in ARCHITECTURES:
                image, noise = (found[method, network, source].mean for source in INPUTS)
                by_input.append(
                    Check(
                        f"{title}, {LABELS[network]}: noisy image {image:.2f} dB, noise {noise:.2f} dB", image > noise
                    )
                )
        for source in INPUTS:
            ours, descent = (found[method, "autoencoder", source].mean for method in ("adam", "gd"))
            difference = paired(records, "adam", "gd", "autoencoder", source)
            measured = f"{INPUT_LABELS[source]}: Adam {ours:.2f} dB, gradient descent {descent:.2f} dB; {difference}"
            adam.append(Check(measured, ours > descent))
        for network in ARCHITECTURES:
            for source in INPUTS:
                descent, exact = (found[method, network, source].mean for method in ("gd", "exact"))
                distance = found["distance", network, source].mean
                same.append(
                    Check(
                        f"{LABELS[network]}, {INPUT_LABELS[source]}: gradient descent {descent:.2f} dB, exact "
                        f"{exact:.2f} dB; outputs differ by {distance:.1%}",
                        abs(descent - exact) <= SAME,
                    )
                )
        for network in ARCHITECTURES:
            first, second = (found[method, network, "image"].mean for method in ("exact", REFINED))
            trained = found["adam", network, "image"].mean
            refined.append(
                Check(
                    f"{LABELS[network]}: {first:.2f} dB, refined {second:.2f} dB (Adam {trained:.2f} dB)",
                    second > first,
                )
            )
        against, total = discordant({case: found[case].mean for case in PAPER}, PAPER)
        agree = total - len(against)
        measured = f"{agree} of {total} pairs"
        if against:
            involved = Counter(case[:2] for pair in against for case in pair).most_common(1)[0]
            (method, network), count = involved
            measured += f"; {count} of the others have {METHODS[method]}, {LABELS[network]}, in them"
        order.append(Check(measured, agree >= CONCORDANT * total))
    return [
        Claim(
            "Under gradient descent the noisy image as input gives a higher PSNR than iid noise: for finite networks "
            "and the steps taken, and for the exact kernel at any time.",
            by_input,
            "table_psnr",
            _input_remark(records) if not all(check.passed for check in by_input) else "",
            SAID,
        ),
        Claim(
            "With an autoencoder Adam gives a higher PSNR than gradient descent.",
            adam,
            "table_psnr",
            _adam_remark(records) if adam else "",
            SAID,
        ),
        Claim(
            f"Gradient descent gives the PSNR of the exact kernel, within {SAME:g} dB in the mean, each at its best "
            "time among the same steps.",
            same,
            "table_psnr",
            NARROW if not all(check.passed for check in same) else "",
        ),
        Claim(
            "With the noisy image as input the refining pass, in which the exact kernel is built again from the first "
            "result, improves on the first pass, each at its best time among the same steps.",
            refined,
            "table_psnr",
            _refined_remark(records) if not all(check.passed for check in refined) else "",
        ),
        Claim(
            "The ten cases of which the paper reports the PSNR on House (another picture, settings unknown) come in "
            f"the same order here: at least {CONCORDANT:.0%} of their pairs.",
            order,
            "table_psnr",
            OTHER if not all(check.passed for check in order) else "",
            SAID,
        ),
    ]


def _last_steps(records: Sequence[Record], methods_of: Sequence[str], network: str, source: str) -> str:
    """In how many results each method would have gone on."""
    titles, counts = METHODS | MORE, []
    for method in methods_of:
        cut = _cut_off(records, method, network, source)
        counts.append(f"{titles[method]} {sum(cut)} of {len(cut)}")
    return f"the best step is the last allowed in {', '.join(counts)}"


def _input_remark(records: Sequence[Record]) -> str:
    """Whether noise is the better input for the filter itself, or only in the training that was done."""
    found, sentences = means(records), []
    for network in ARCHITECTURES:
        trained, limit = (
            found[method, network, "noise"].mean - found[method, network, "image"].mean for method in ("gd", ANY_TIME)
        )
        if limit >= 0:
            sentences.append(
                f"With the {LABELS[network]} noise is the better input for the exact kernel too, by {limit:.2f} dB: "
                "the order is that of the filters, on these small pictures with little in them that repeats."
            )
        elif trained >= 0:
            sentences.append(
                f"With the {LABELS[network]} the exact kernel has the order claimed, by {-limit:.2f} dB: width and the "
                f"steps allowed decide in training (noisy image: {_last_steps(records, ('gd',), network, 'image')})."
            )
    return " ".join(sentences)


def _adam_remark(records: Sequence[Record]) -> str:
    """Whether what Adam reaches is beyond the exact kernel, which need not stop where training does."""
    found, sentences = means(records), []
    for source in INPUTS:
        adam, descent, limit = (found[method, "autoencoder", source].mean for method in ("adam", "gd", ANY_TIME))
        if limit <= adam:
            meaning = "no more than Adam: whenever it is stopped, the fixed kernel does not surpass it"
        elif adam > descent:
            meaning = "more than Adam, whose lead over gradient descent is one of few steps and a small width"
        else:
            meaning = "more than both"
        sentences.append(
            f"Input {INPUT_LABELS[source]}: the exact kernel at any t gives {limit:.2f} dB, {meaning}; "
            f"{_last_steps(records, ('adam', 'gd'), 'autoencoder', source)}."
        )
    sentences.append(_limit_remark(records))
    lost = [
        source
        for source in INPUTS
        if found["adam", "autoencoder", source].mean <= found["gd", "autoencoder", source].mean
    ]
    sentences += [_explained_by_the_limit(records, source) for source in lost]
    return " ".join([*sentences, OTHER] if lost else sentences)


@dataclass(frozen=True)
class Paired:
    """Differences of two methods on the same pictures and seeds.

    Attributes
    ----------
    mean, error : float
        Over the pictures of the means over their seeds, and the standard error of it; nan with one picture.
    won, pictures : int
        Those on which the first method is better, and all.
    """

    mean: float
    error: float
    won: int
    pictures: int

    def __str__(self) -> str:
        spread = "" if np.isnan(self.error) else f" ± {self.error:.2f}"
        return f"{self.mean:+.2f}{spread} dB, better on {self.won} of {self.pictures}"


def paired(
    records: Sequence[Record], first: str, second: str, network: str, source: str, *, before_the_last: bool = False
) -> Paired | None:
    """PSNR of one method less another's; None without results.

    ``before_the_last`` leaves out what the limit on the steps may have cut off: runs in which the best step of either
    method is the last one.
    """
    names, differences = complete(records), {}
    for record in records:
        case = (record.settings.get("network"), record.settings.get("input"))
        if case != (network, source) or record.settings["picture"] not in names:
            continue
        last = record.settings.get("most_steps")
        if before_the_last and last in (record.values.get(f"{method}_steps") for method in (first, second)):
            continue
        of_picture = differences.setdefault(record.settings["picture"], [])
        of_picture.append(record.values[first] - record.values[second])
    if not differences:
        return None
    found = averaged(differences)
    won = sum(np.mean(of_seeds) > 0 for of_seeds in differences.values())
    return Paired(found.mean, found.pictures / float(np.sqrt(len(differences))), int(won), len(differences))


def _limit_remark(records: Sequence[Record]) -> str:
    """Adam less gradient descent, by picture, in all networks; and without the runs that the limit has cut off."""
    sentences = []
    for network in ARCHITECTURES:
        for source in INPUTS:
            whole = paired(records, "adam", "gd", network, source)
            if whole is None:
                continue
            text = f"{LABELS[network]}, {INPUT_LABELS[source]} {whole}"
            inside = paired(records, "adam", "gd", network, source, before_the_last=True)
            if inside is None:
                text += " (in every run a best step is the last)"
            else:
                text += f" (where neither best step is the last: {inside})"
            sentences.append(text)
    return (
        "Adam less gradient descent, paired by picture, ± the standard error over the pictures: "
        f"{'; '.join(sentences)}."
    )


def _explained_by_the_limit(records: Sequence[Record], source: str) -> str:
    """Whether a loss of Adam with the autoencoder is gone where the limit on the steps has not cut off a run."""
    inside = paired(records, "adam", "gd", "autoencoder", source, before_the_last=True)
    if inside is not None and inside.mean < 0:
        return (
            f"The loss with the input {INPUT_LABELS[source]} is not explained by the limit on steps; the width, the "
            "learning rate of Adam, the depth of the autoencoder and larger pictures are what else could be tried."
        )
    return f"The loss with the input {INPUT_LABELS[source]} may be one of the limit on steps."


def _refined_remark(records: Sequence[Record]) -> str:
    """How often refining had not come to its best step, and what the first pass does without a limit."""
    found, cases = means(records), []
    for network in ARCHITECTURES:
        first, second, limit = (found[method, network, "image"].mean for method in ("exact", REFINED, ANY_TIME))
        if second <= first:
            cases.append(
                f"{LABELS[network]}: {_last_steps(records, ('exact', REFINED), network, 'image')}; the first pass at "
                f"any t gives {limit:.2f} dB."
            )
    return f"Where refining is no gain, the steps allowed may be why. {' '.join(cases)}"


NARROW = (
    "What is missing is width: the distance falls with one over its root (see the experiment on gradient descent and "
    "the filter), and noise in the network's kernel costs PSNR."
)

OTHER = (
    "Pictures, noise, widths, depths and numbers of steps differ. The pictures here are small and averaged down, "
    "with little in them that is smooth over many pixels, which may be why an autoencoder gains less."
)


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


def text(records: list[Record]) -> str:
    """Settings in words, the table, and the paper's figures beside ours."""
    names = complete(records)
    paragraph = (
        "Colour pictures of the test set in the public domain, their middle parts averaged down, sigma 25 of 255. "
        f"Finite networks with three output channels; noise as input has {architectures.NOISE_CHANNELS} channels, "
        "and the exact and the Nystrom kernel are those of the same draw. Nystrom landmarks are drawn at random. "
        "Gradient descent has a learning rate of one over the largest eigenvalue of the exact kernel, or of the "
        "network's own at the start if that is larger. **The best time is told by the clean picture, in all rows "
        f"alike**, and lies among the steps that were taken in training; *{MORE[ANY_TIME]}* looks on, much further. "
        f"*{MORE[REFINED]}* builds the exact kernel again from the first result and filters "
        f"the noisy image anew. Adam (0.9, 0.999) takes steps of {architectures.adam_steps(architectures.ADAM_RATE)}. "
        "Outputs are less what they were at the start.\n\n"
        f"{architectures.DESCRIPTION}"
    )
    if not names:
        return paragraph
    found = means(records)
    case = next(record.settings for record in records if "network" in record.settings)
    widths = {r.settings["network"]: r.settings["width"] for r in records if "network" in r.settings}
    seeds = len({record.settings["seed"] for record in records if "network" in record.settings})
    sizes = (
        f"{len(names)} pictures ({', '.join(names)}) of {case['side']} x {case['side']} pixels, reduction "
        f"{case['reduction']}; at most {case['most_steps']} steps, at any t {case['any_time_steps']}; "
        f"Nystrom with {case['landmarks']:.0%} of the pixels; {seeds} seed{'s' if seeds > 1 else ''}; widths "
        + ", ".join(f"{LABELS[network]} {width}" for network, width in widths.items())
        + "."
    )
    rows = [
        [title, *(_cell(found.get((method, network, source))) for network in ARCHITECTURES for source in INPUTS)]
        for method, title in (METHODS | MORE).items()
    ]
    head = [
        "PSNR (dB)",
        *(f"{LABELS[network]}, {INPUT_LABELS[source]}" for network in ARCHITECTURES for source in INPUTS),
    ]
    spread = "Mean over the pictures ± standard deviation over the pictures"
    spread += " (over the seeds of a picture)." if seeds > 1 else "; one seed."
    peers = [
        f"{title} {_cell(found[peer,])}" if (peer,) in found else f"{title} left out, as it is not installed"
        for peer, title in PEERS.items()
    ]
    return "\n\n".join(
        [paragraph, sizes, table(head, rows), f"{spread} {'; '.join(peers)}.", _cut(records), _beside_the_paper(found)]
    )


def _cut_off(records: Sequence[Record], method: str, network: str, source: str) -> list[bool]:
    """Whether the best step was the last that was looked at, for the complete pictures and all seeds of a case."""
    allowed, names = "any_time_steps" if method == ANY_TIME else "most_steps", complete(records)
    return [
        record.values[f"{method}_steps"] == record.settings[allowed]
        for record in records
        if (record.settings.get("network"), record.settings.get("input")) == (network, source)
        and record.settings["picture"] in names
        and f"{method}_steps" in record.values
    ]


def _cut(records: Sequence[Record]) -> str:
    """Where training, or a filter, would have gone on."""
    cases = {
        f"{title}, {LABELS[network]}, {INPUT_LABELS[source]}": _cut_off(records, method, network, source)
        for method, title in (METHODS | MORE).items()
        for network in ARCHITECTURES
        for source in INPUTS
    }
    return f"Counted over pictures and seeds, {last_allowed(cases)}"


def _cell(mean: Mean | None) -> str:
    if mean is None:
        return "-"
    cell = f"{mean.mean:.2f}"
    if np.isfinite(mean.pictures):
        cell += f" ± {mean.pictures:.1f}"
    return cell if not np.isfinite(mean.seeds) else f"{cell} ({mean.seeds:.2f})"


def _beside_the_paper(found: Mapping[tuple[str, ...], Mean]) -> str:
    columns = list(dict.fromkeys(case[:2] for case in PAPER))
    head = ["", *(f"{METHODS[method]}, {LABELS[network]}" for method, network in columns)]
    rows = []
    for source in INPUTS:
        cases = [(*column, source) for column in columns]
        rows.append([f"{INPUT_LABELS[source]}: here", *(f"{found[case].mean:.2f}" for case in cases)])
        rows.append([f"{INPUT_LABELS[source]}: paper, *House*", *(f"{PAPER[case]:.1f}" for case in cases)])
    return (
        "The ten figures of the paper (dB) stand below ours. **They are of another picture, *House*, and of settings "
        "that are not known here** (noise level, kernel sizes, widths, steps): only their order can be compared.\n\n"
        + table(head, rows)
    )


EXPERIMENT = Experiment(
    name="table",
    title="Trained networks, filters and other denoisers on nine pictures",
    version=2,
    units=units,
    run=run,
    figures=figures,
    claims=claims,
    text=text,
)
