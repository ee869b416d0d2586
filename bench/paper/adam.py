"""Experiment ``adam``: the tangent kernel before and after training, and how far a fixed one explains the result.

A finite network is trained by gradient descent and by Adam from the same weights.  At the best time of each (the
highest PSNR of its output) its empirical kernel is compared with that at the start: by its change, its leading
eigenvectors, and the filter that it defines in closed form.  Changes are compared over the width at equal loss.

With three colours the kernel Theta^ of the outputs has 3 d rows.  Weights and eigenvectors are shown of its part in the
gray direction, B^T Theta^ B with B v = v (x) (1, 1, 1)/sqrt(3): the kernel of the outputs' mean, scaled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse.linalg
from scipy.sparse.linalg import LinearOperator

from bench.paper import analysis, architectures, data, inputs
from bench.paper.architectures import BLUE, GRAY, GREEN, INPUT_LABELS, INPUTS, LABELS, ORANGE, PURPLE
from bench.paper.data import Problem
from bench.paper.experiment import PAPER, Check, Claim, Experiment, Picture, Record, Result, Tools, Unit
from bench.paper.fits import power_law
from bench.paper.report import last_allowed, table
from bench.paper.weights import crossing
from ntkfast import NTK

if TYPE_CHECKING:
    from bench.paper.scales import Scale
    from ntkfast.finite import Training

PICTURE, CENTRE = "astronaut", (0.215, 0.44)  # the face
TRAINED = ("vanilla", "autoencoder")
OPTIMIZERS = ("gd", "adam")
FAST = "fast_adam"  # Adam with a large learning rate, for the change of the kernel alone
OPTIMIZER_TITLES = {"gd": "gradient descent", "adam": "Adam", FAST: f"Adam, {architectures.FAST_ADAM_RATE:g}/width"}
OPTIMIZER_COLOURS = {"gd": BLUE, "adam": ORANGE, FAST: PURPLE}
POINTS = 61  # recorded steps of a training, and of a closed form
CHECKPOINTS = 8  # recorded steps of a training at which the change of the kernel is measured
COLOURS = 3
PIXEL = (0.5, 0.34)  # whose weights are drawn: shares of the sides
SHOWN = 4  # eigenvectors drawn

FEWER_STEPS = (
    "With small steps of the order of one over the width, a wide network needs fewer of them to the same loss, and its "
    "weights and its kernel have moved less by then (see the experiment on the orders of the changes). What the widths "
    "run here show is between the limits: narrow networks are far from that of infinite width under any optimizer."
)
NARROW = (
    "At this width the fixed kernel does not explain gradient descent through the autoencoder well either: its "
    "distance falls as the width grows (see the experiment on gradient descent and the filter)."
)

RATES = {"adam": architectures.ADAM_RATE, FAST: architectures.FAST_ADAM_RATE}  # times the width

# Bounds of the claims.
SETTLES = -0.3  # exponent of the width in the change of the kernel by gradient descent, at most
STAYS = -0.25  # that in the change by Adam, at least
LAZY = 0.1  # relative distance of gradient descent's output to the fixed filters, above which it is not explained
FURTHER = 2.0  # distance of Adam's output to the fixed filters over that of gradient descent's
EXPLAINED = 0.5  # dB between Adam's output and the closed form of the adapted kernel, or of the refined one
NEARER = 0.5  # distance of Adam's output to the filter of the adapted kernel over that to the filter of the start's


def units(scale: Scale) -> list[Unit]:
    """One a network, input, width and seed: noise as input, and what is costly, at the main width alone."""
    sizes = scale.adam
    settings = {"side": sizes.side, "reduction": sizes.reduction, "most_steps": sizes.most_steps}
    settings |= {"probes": sizes.probes, "eigenvectors": sizes.eigenvectors, "picture": PICTURE, "centre": list(CENTRE)}
    settings |= {
        "channels": architectures.NOISE_CHANNELS,
        "fast_adam_rate": architectures.FAST_ADAM_RATE,
        "points": POINTS,
        "checkpoints": CHECKPOINTS,
        "pixel": list(PIXEL),
    }
    settings |= {"closed_form_steps": sizes.closed_form_steps}
    found = []
    for name in TRAINED:
        for source in INPUTS:
            for width in sizes.widths[name]:
                main = width == sizes.main_width[name]
                if main or source == "image":
                    case = {"network": name, "layers": repr(architectures.network(name)), "input": source}
                    case |= {"width": width, "main": main, "adam_rate": architectures.ADAM_RATE}
                    found += [
                        Unit(f"{name}/{source}/width={width}/seed={seed}", {**case, "seed": seed, **settings})
                        for seed in range(sizes.seeds)
                    ]
    return found


def run(settings: dict[str, Any], tools: Tools) -> Result:
    """Both trainings, the kernels at their ends and the filters that these define."""
    side, seed = settings["side"], settings["seed"]
    problem = data.problem(
        settings["picture"], side, reduction=settings["reduction"], centre=tuple(settings["centre"]), gray=False
    )
    noise = settings["input"] == "noise"
    x = architectures.noise_channels(side, settings["channels"], seed) if noise else problem.noisy
    trial = _Trial(settings, tools, problem, x)
    values, arrays = {"noisy_psnr": problem.psnr(problem.noisy)}, {"clean": problem.clean, "noisy": problem.noisy}
    for part in (_fixed_kernels, _trainings, _adapted_kernels):
        found, kept = part(trial)
        values, arrays = values | found, arrays | kept
    return Result(values, arrays)


Part = tuple[dict[str, Any], dict[str, np.ndarray]]  # values and arrays of a result


def _fixed_kernels(trial: _Trial) -> Part:
    """The filters of the exact kernel and of the network's at its start; finds the rate of gradient descent."""
    network = architectures.network(trial.settings["network"])
    where = architectures.kernel_device(trial.tools.device)
    exact = NTK(network, trial.x, device=where)
    path = trial.filter_path(exact)
    values, best = trial.best("exact", path)
    if trial.settings["main"] and trial.settings["input"] == "image":
        # The refining pass: the kernel of the first result filters the same noisy image.
        values |= trial.best("refined", trial.filter_path(NTK(network, path[best], device=where)))[0]
    trial.start_path = trial.filter_path(trial.start)
    found, best = trial.best("start", trial.start_path)
    # The filters have found the eigenvalues; that of a narrow network may be well above the limit's.
    trial.rate = 1.0 / max(float(exact.lambda_max), float(trial.start.lambda_max))
    trial.tools.progress(0.2)
    trial.start_output = trial.start_path[best]
    return values | found, {"start_output": trial.start_output}


def _trainings(trial: _Trial) -> Part:
    """All trainings to their ends, and how far their best outputs are from the filters of the kernel at the start."""
    values: dict[str, Any] = {}
    arrays: dict[str, np.ndarray] = {}
    for optimizer in trial.optimizers:
        path = trial.trainings[optimizer] = trial.train(optimizer)[0]
        best = int(np.argmax(path.psnr))
        values |= {
            f"{optimizer}_psnr": float(path.psnr[best]),
            f"{optimizer}_steps": path.steps[best],
            f"{optimizer}_distance": min(analysis.relative_distance(path.outputs[best], z) for z in trial.start_path),
            f"{optimizer}_seconds": path.seconds,
        }
        arrays |= {
            f"{optimizer}_path_steps": np.array(path.steps),
            f"{optimizer}_path_psnr": path.psnr,
            f"{optimizer}_output": path.outputs[best],
        }
    trial.tools.progress(0.5)
    return values, arrays


def _adapted_kernels(trial: _Trial) -> Part:
    """How the kernel changes, and what it is at the best times.  Needs the trainings.

    The kernel is looked at in a second training, which ends where the first one says: late enough for the best step and
    for the energy of the noise, 1/2 sum (z - y)^2 = 1/2 n sigma^2 for n numbers, or the lowest loss that all trainings
    of this network reach.  Changes are compared over the width where the loss is the same for all networks, which needs
    their losses: :func:`_changes`.
    """
    main = trial.settings["main"]
    noise_energy = trial.problem.noisy.size * trial.problem.sigma**2 / 2
    level = max(noise_energy, *(float(path.loss.min()) for path in trial.trainings.values()))
    values: dict[str, Any] = {"noise_energy": noise_energy}
    arrays: dict[str, np.ndarray] = {}
    if main:
        values, arrays = (a | b for a, b in zip((values, arrays), trial.look("start", trial.start), strict=True))
    for n, (optimizer, path) in enumerate(trial.trainings.items(), 1):
        best, equal = path.steps[int(np.argmax(path.psnr))], path.steps[int(np.argmax(path.loss <= level))]
        again, module = trial.train(optimizer, stop=max(1, best, equal), probe=True)
        changes = analysis.relative_changes(again.kernel_action)
        values[f"{optimizer}_change"] = float(np.interp(best, again.steps, changes))
        values[f"{optimizer}_losses"] = {"steps": list(path.steps), "loss": path.loss.tolist()}
        values[f"{optimizer}_changes"] = {"steps": list(again.steps), "change": changes.tolist()}
        if main and optimizer in OPTIMIZERS:
            if best < again.steps[-1]:
                module = trial.train(optimizer, stop=max(1, best))[1]
            after = empirical(module, trial.x)
            found, kept = trial.look(optimizer, after)
            filtered = trial.filter_path(after)
            filter_values, place = trial.best(optimizer, filtered)
            values |= found | filter_values
            arrays |= kept | {f"{optimizer}_filter_output": filtered[place]}
            trained = path.outputs[int(np.argmax(path.psnr))]
            for kernel, output in (("filter", filtered[place]), ("start_filter", trial.start_output)):
                values[f"{optimizer}_distance_to_{kernel}"] = analysis.relative_distance(output, trained)
        trial.tools.progress(0.5 + 0.5 * n / len(trial.trainings))
    return values, arrays


def empirical(module: Any, x: np.ndarray) -> LinearOperator:
    """The module's kernel at its present weights."""
    from ntkfast.finite import empirical_ntk

    return empirical_ntk(module, x)


class _Trial:
    """A picture and an input, networks trained on them, and what is measured of kernels.

    Parameters
    ----------
    settings : dict
        Of the unit.
    tools : Tools
    problem : Problem
    x : ndarray, shape (H, W, C)
        The networks' input.
    """

    def __init__(self, settings: dict[str, Any], tools: Tools, problem: Problem, x: np.ndarray) -> None:
        self.settings, self.tools, self.problem, self.x = settings, tools, problem, x
        side = settings["side"]
        rng = np.random.default_rng(0)
        self.probes = rng.standard_normal((COLOURS * side * side, settings["probes"])).astype(np.float32)
        self.times = analysis.times(settings["closed_form_steps"], settings["points"])
        gray = problem.clean.mean(axis=2)
        self.clean = gray - gray.mean()
        self.start = empirical(self.module(), x)
        # Changes over the width are measured with the noisy image as input.
        self.optimizers = (*OPTIMIZERS, FAST) if settings["input"] == "image" else OPTIMIZERS
        # Found on the way: the filters of the kernel at the start and their best output, the rate of gradient descent,
        # the trainings.
        self.start_path: np.ndarray
        self.start_output: np.ndarray
        self.rate: float
        self.trainings: dict[str, Training] = {}

    def module(self) -> Any:
        """The network at its start."""
        settings = self.settings
        return architectures.finite_network(
            architectures.network(settings["network"]),
            settings["width"],
            settings["seed"],
            self.tools.device,
            in_channels=self.x.shape[2],
            out_channels=COLOURS,
        )

    def train(self, optimizer: str, *, stop: int | None = None, probe: bool = False) -> tuple[Training, Any]:
        """A training from the start, to its end or to ``stop``; what was recorded, and the module as it ended."""
        from ntkfast.finite import train

        settings = self.settings
        steps = settings["most_steps"] if stop is None else stop
        points = settings["checkpoints" if probe else "points"]
        module = self.module()
        result = train(
            module,
            self.x,
            self.problem.noisy,
            optimizer="gd" if optimizer == "gd" else "adam",
            steps=steps,
            learning_rate=self.rate if optimizer == "gd" else settings[f"{optimizer}_rate"],
            record=[0, *analysis.times(steps, points).tolist()],
            probe=self.probes if probe else None,
            clean=self.problem.clean,
            data_range=1.0,
        )
        return result, module

    def filter_path(self, kernel: LinearOperator) -> np.ndarray:
        """Gradient descent in closed form with a kernel, at all times: (n, H, W, 3)."""
        return analysis.closed_form(kernel, self.problem.noisy, self.times)

    def best(self, name: str, path: np.ndarray) -> tuple[dict[str, Any], int]:
        """PSNR and number of steps of the best one of a path, and its place."""
        quality = [self.problem.psnr(z) for z in path]
        place = int(np.argmax(quality))
        return {f"{name}_filter_psnr": quality[place], f"{name}_filter_steps": int(self.times[place])}, place

    def look(self, name: str, kernel: LinearOperator) -> Part:
        """Alignments with the clean picture; weights of a pixel and leading eigenvectors, as images."""
        side = self.settings["side"]
        gray = analysis.in_gray(kernel, COLOURS)
        values, vectors = scipy.sparse.linalg.eigsh(
            gray, self.settings["eigenvectors"], v0=np.ones(side * side, np.float32), tol=1e-3
        )
        vectors = vectors[:, ::-1]
        # |Theta^|_F^2 = 3 |gray part|_F^2 in the limit of infinite width, where the colours do not mix
        frobenius = float(np.linalg.norm(kernel @ self.probes)) / np.sqrt(COLOURS * self.probes.shape[1])
        shown = vectors[:, :SHOWN].T.reshape(-1, side, side)
        signs = np.sign((shown * self.clean).sum(axis=(1, 2)))  # bright where the picture is
        row, col = (round(share * side) for share in self.settings["pixel"])
        unit = np.zeros(side * side, np.float32)
        unit[row * side + col] = 1.0
        return {
            f"{name}_alignment": analysis.alignment(vectors, self.clean.ravel()),
            f"{name}_kernel_alignment": analysis.kernel_alignment(gray, self.clean.ravel(), frobenius),
        }, {
            f"{name}_weights": (gray @ unit).reshape(side, side),
            f"{name}_eigenvalues": values[::-1],
            f"{name}_eigenvectors": shown * signs[:, None, None],
            "pixel": np.array([row, col]),
        }


# --- The report ---------------------------------------------------------------------------------------------------


def _cases(records: list[Record]) -> dict[tuple[str, str], list[Record]]:
    """The records at the main width by network and input, seeds together."""
    found: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        if record.settings["main"]:
            found.setdefault((record.settings["network"], record.settings["input"]), []).append(record)
    return found


def _by_width(records: list[Record]) -> dict[tuple[tuple[str, str], int], list[Record]]:
    """All records by ((network, input), width), seeds together."""
    found: dict[tuple[tuple[str, str], int], list[Record]] = {}
    for record in records:
        case = (record.settings["network"], record.settings["input"])
        found.setdefault((case, record.settings["width"]), []).append(record)
    return found


def _on_the_image(records: list[Record], name: str) -> list[Record]:
    """The records of a network on the noisy image, all widths and seeds."""
    return [r for r in records if r.settings["network"] == name and r.settings["input"] == "image"]


def _over_width(records: list[Record], name: str, key: str) -> tuple[np.ndarray, np.ndarray]:
    """Widths and values of a network on the noisy image, all seeds."""
    chosen = _on_the_image(records, name)
    return np.array([r.settings["width"] for r in chosen], float), np.array([r.values[key] for r in chosen], float)


def _level(records: list[Record], name: str) -> float:
    """Loss at which the networks of an architecture are compared: the noise's energy, or the lowest that all reach."""
    chosen = _on_the_image(records, name)
    lowest = [min(r.values[f"{optimizer}_losses"]["loss"]) for r in chosen for optimizer in (*OPTIMIZERS, FAST)]
    return float(max(*(r.values["noise_energy"] for r in chosen), *lowest))


def _changes(records: list[Record], name: str, optimizer: str) -> tuple[np.ndarray, np.ndarray]:
    """Widths, and the kernel's relative change until the loss is that of :func:`_level`, linear between recorded steps.

    Without those where nothing was learnt.
    """
    widths, found = [], []
    for record in _on_the_image(records, name):
        losses, changes = (record.values[f"{optimizer}_{key}"] for key in ("losses", "changes"))
        place = crossing(losses["loss"], _level(records, name))
        assert place is not None  # the level is one that all networks reach
        step = np.interp(place, np.arange(len(losses["steps"])), losses["steps"])
        change = float(np.interp(step, changes["steps"], changes["change"]))
        if change > 0:
            widths.append(record.settings["width"])
            found.append(change)
    return np.array(widths, float), np.array(found)


def _mean(records: Sequence[Record], key: str) -> float:
    return float(np.mean([record.values[key] for record in records]))


def _case_title(case: tuple[str, str]) -> str:
    return f"{LABELS[case[0]]}, {INPUT_LABELS[case[1]]}"


def claims(records: list[Record]) -> list[Claim]:
    """How the kernel changes, and what the fixed and the adapted one explain."""
    settles, stays, unexplained = [], [], []
    far_descent = False
    for name in TRAINED:
        widths, by_descent = _changes(records, name, "gd")
        if len(set(widths)) < 2:
            continue
        widest = widths == widths.max()
        law, end = power_law(widths, by_descent), by_descent[widest].mean()
        near = float(_over_width(records, name, "gd_distance")[1][widest].mean())
        far_descent |= near >= LAZY
        where = f"{LABELS[name]}, width {widths.max():.0f}"
        settles.append(
            Check(f"{LABELS[name]}: exponent {law}, {end:.1%} at width {widths.max():.0f}", law.slope <= SETTLES)
        )
        for optimizer, rate in RATES.items():
            others, change = _changes(records, name, optimizer)
            if not np.array_equal(widths, others):
                continue
            law = power_law(widths, change)
            measured = f"{LABELS[name]}, {rate:g}/width: exponent {law}, {change[widest].mean():.1%} at width "
            measured += f"{widths.max():.0f} (gradient descent: {end:.1%})"
            stays.append(Check(measured, law.slope >= STAYS and change[widest].mean() > end))
            (far, quality), (near_quality,) = (
                [float(_over_width(records, name, key)[1][widest].mean()) for key in keys]
                for keys in ((f"{optimizer}_distance", f"{optimizer}_psnr"), ("gd_psnr",))
            )
            measured = f"{where}: Adam with {rate:g}/width {far:.1%} ({quality:.2f} dB at its best), gradient descent "
            measured += f"{near:.1%} ({near_quality:.2f} dB)"
            unexplained.append(Check(measured, far >= FURTHER * near))
    aligned, adapted, counterpart = [], [], []
    for case, group in _cases(records).items():
        title = _case_title(case)
        aligned += [
            _alignment_check(f"{title}, {words}", group, key)
            for key, words in (("alignment", "span"), ("kernel_alignment", "kernel-target"))
        ]
        trained, closed, fixed = (_mean(group, f"{k}_psnr") for k in ("adam", "adam_filter", "start_filter"))
        adapted.append(
            Check(
                f"{title}: adapted kernel {closed:.2f} dB, Adam {trained:.2f} dB, kernel of the start {fixed:.2f} dB",
                abs(closed - trained) <= EXPLAINED and abs(closed - trained) <= abs(fixed - trained),
            )
        )
        near, far = (_mean(group, f"adam_distance_to_{kernel}") for kernel in ("filter", "start_filter"))
        measured = (
            f"{title}: the adapted kernel's output is {near:.1%} from Adam's, that of the start's kernel {far:.1%}"
        )
        adapted.append(Check(measured, near <= NEARER * far))
        if all("refined_filter_psnr" in record.values for record in group):
            refined = _mean(group, "refined_filter_psnr")
            measured = f"{title}: refining pass {refined:.2f} dB, adapted kernel {closed:.2f} dB"
            counterpart.append(Check(measured, abs(refined - closed) <= EXPLAINED))
    return [
        Claim(
            "Under gradient descent the kernel settles: its relative change until a given loss falls with the width, "
            f"with an exponent of at most {SETTLES:g} (noisy image as input).",
            settles,
            "adam_change",
        ),
        Claim(
            "Under Adam, with a learning rate of one over the width, the kernel adapts while the network trains: until "
            f"the same loss it changes more than under gradient descent, with an exponent of at least {STAYS:g} (the "
            "exponent is ours).",
            stays,
            "adam_change",
            "" if all(check.passed for check in stays) else FEWER_STEPS,
            PAPER,
        ),
        Claim(
            f"A fixed kernel does not explain Adam: its best output is at least {FURTHER:g} times as far from the "
            "filters of the kernel at the start, at any time, as that of gradient descent (relative distance, "
            "largest width, noisy image as input).",
            unexplained,
            remark=NARROW if far_descent else "",
            source=PAPER,
        ),
        Claim(
            "Adam turns the kernel towards the picture: for every seed more of the clean picture lies in the span of "
            "its leading eigenvectors than at the start and than after gradient descent, and the kernel-target "
            "alignment is higher.",
            aligned,
            "adam_eigenvectors",
            _aligned_remark(_cases(records)),
        ),
        Claim(
            "The adapted kernel explains Adam: in closed form, from zero, it denoises as well as the network that "
            f"Adam trained, within {EXPLAINED:g} dB, and comes nearer to that PSNR than the kernel of the start; and "
            f"its output is at most {NEARER:g} times as far from that of the network as the output of the start's "
            "kernel is (relative distance, mean over the seeds).",
            adapted,
            "adam_psnr",
            _adapted_remark(_cases(records), adapted),
        ),
        Claim(
            "The refining pass, in which the exact kernel is built again from its first result, is the closed-form "
            "counterpart of the kernel that Adam adapts: with the noisy image as input both denoise alike, within "
            f"{EXPLAINED:g} dB.",
            counterpart,
            "adam_psnr",
            _counterpart_remark(_cases(records), counterpart),
        ),
    ]


def _alignment_check(title: str, group: Sequence[Record], key: str) -> Check:
    """One measure of the kernel's alignment with the picture after Adam against the others', seed by seed."""
    before, descent, after = ([r.values[f"{kernel}_{key}"] for r in group] for kernel in ("start", "gd", "adam"))
    least = [min(a - b for a, b in zip(after, other, strict=True)) for other in (before, descent)]
    return Check(
        f"{title}: {np.mean(before):.3f} at the start, {np.mean(after):.3f} after Adam, {np.mean(descent):.3f} after "
        f"gradient descent; Adam less the start at least {least[0]:+.4f}, less gradient descent {least[1]:+.4f} "
        f"({len(group)} seed{'s' if len(group) > 1 else ''})",
        min(least) > 0,
    )


def _aligned_remark(cases: dict[tuple[str, str], list[Record]]) -> str:
    """How far the kernels have moved, which bounds how far their eigenvectors turn; and what the measures differ in."""
    moved = "; ".join(
        f"{_case_title(case)} {_mean(group, 'adam_change'):.1%} (gradient descent {_mean(group, 'gd_change'):.1%})"
        for case, group in cases.items()
    )
    if not moved:
        return ""
    return (
        "The kernel turns only as far as it has changed by the best step of each training, and the two trainings stop "
        f"at different steps: {moved}. The share in the span depends on the number of eigenvectors taken, and where "
        "two eigenvalues near that place are close, on small changes of the kernel; the kernel-target alignment weighs "
        "all eigenvectors with their eigenvalues. An order that all of a few seeds have is weak evidence: by chance "
        "two seeds agree on the sign of a difference every second time."
    )


def _adapted_remark(cases: dict[tuple[str, str], list[Record]], checks: Sequence[Check]) -> str:
    """What differs between a network that Adam trains and any fixed kernel."""
    if all(check.passed for check in checks):
        return ""
    changes = ", ".join(f"{_case_title(case)} {_mean(group, 'adam_change'):.1%}" for case, group in cases.items())
    return (
        "Adam weighs every parameter's gradient by a factor of its own, so that its output does not follow "
        "z' = Theta (y - z) for the tangent kernel Theta of any time. In closed form the adapted kernel takes up what "
        "was learnt, but not the path to it; and it can be nearer than the kernel of the start only as far as the "
        f"kernel has changed until Adam's best step: {changes}."
    )


def _counterpart_remark(cases: dict[tuple[str, str], list[Record]], checks: Sequence[Check]) -> str:
    """How far the exact kernel is from the network's own before either has been adapted."""
    if all(check.passed for check in checks):
        return ""
    gaps = ", ".join(
        f"{_case_title(case)} {_mean(group, 'exact_filter_psnr') - _mean(group, 'start_filter_psnr'):+.2f} dB"
        for case, group in cases.items()
        if all("refined_filter_psnr" in record.values for record in group)
    )
    return (
        "The refining pass starts from the kernel of infinite width, Adam from that of a finite network. The exact "
        f"kernel over the network's own at the start, before either is adapted: {gaps}."
    )


def figures(records: list[Record]) -> list[Picture]:
    """Changes over the width, PSNRs, weights of a pixel, eigenvectors, pictures."""
    cases = _cases(records)
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
            widths, changes = _changes(records, name, optimizer)
            if not len(widths):
                continue
            colour = OPTIMIZER_COLOURS[optimizer]
            axes.plot(widths, changes, marker, color=colour, alpha=0.5, markersize=5)
            distinct = np.unique(widths)
            mean = [analysis.geometric_mean(changes[widths == width]) for width in distinct]
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


def _quality(cases: dict[tuple[str, str], list[Record]]) -> Picture:
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
    axes.set_xticks(range(len(cases)), [_case_title(case).replace(", ", "\ninput: ") for case in cases])
    axes.set_ylabel("PSNR at the best time (dB)")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return Picture(
        "adam_psnr",
        figure,
        "PSNR, each at its best time. Hatched: the filter in closed form of the kernel that training, or the "
        "refining pass, has left. Dashes: the seeds.",
    )


KERNELS = {"start": "at the start", "gd": "after gradient descent", "adam": "after Adam"}


def _weights(cases: dict[tuple[str, str], list[Record]]) -> Picture:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.5 * (len(KERNELS) + 2) + 1, 2.45 * len(cases) + 0.4), layout="compressed")
    grid = figure.subplots(len(cases), len(KERNELS) + 2, squeeze=False)
    for row, (case, group) in zip(grid, cases.items(), strict=True):
        arrays = group[0].load()
        clean = inputs.display(arrays["clean"])
        row[0].imshow(clean)
        row[0].plot(arrays["pixel"][1], arrays["pixel"][0], "+", color="black", markersize=9, markeredgewidth=1.5)
        row[0].set_ylabel(_case_title(case).replace(", ", "\n"), fontsize=10)
        for axes, name in zip(row[1:-1], KERNELS, strict=True):
            shown = inputs.draw_weights(axes, clean, arrays[f"{name}_weights"], arrays["pixel"], saturation=1.0)
        before, after = arrays["start_weights"], arrays["adam_weights"]
        inputs.draw_weights(row[-1], clean, after - before, arrays["pixel"], saturation=1.0)
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


def _eigenvectors(cases: dict[tuple[str, str], list[Record]]) -> Picture:
    from matplotlib.figure import Figure

    names = ("start", "adam")
    columns = SHOWN * len(names)
    figure = Figure(figsize=(1.5 * (columns + 1), 1.75 * len(cases) + 0.6), layout="constrained")
    grid = figure.subplots(len(cases), columns + 1, squeeze=False)
    for place, (row, (case, group)) in enumerate(zip(grid, cases.items(), strict=True)):
        arrays = group[0].load()
        row[0].imshow(arrays["clean"].mean(axis=2), cmap="gray")
        row[0].set_ylabel(_case_title(case).replace(", ", "\n"), fontsize=9)
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


def _pictures(cases: dict[tuple[str, str], list[Record]]) -> Picture:
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
        row[0].set_ylabel(_case_title(case).replace(", ", "\n"), fontsize=10)
    return Picture(
        "adam_pictures",
        figure,
        "Results at the best times, first seed. The last column is the kernel that Adam has left, applied in closed "
        "form from zero: it stands beside the network that Adam trained.",
    )


def text(records: list[Record]) -> str:
    """Settings in words, and the table of PSNRs and of what happened to the kernels."""
    paragraph = (
        f"Finite networks on a colour picture (*{PICTURE}*, averaged down), sigma 25 of 255, trained from the same "
        "start by gradient descent (learning rate one over the largest eigenvalue of the exact kernel, or of the "
        "network's own at the start if that is larger) and by Adam (every weight of the standard parametrisation "
        f"moves by about {architectures.ADAM_RATE:g} / width in a step; for the change of the kernel over the width by "
        f"{architectures.FAST_ADAM_RATE:g} / width too). Noise as input has "
        f"{architectures.NOISE_CHANNELS} channels. Outputs are less what they were at the start. Best times are "
        "told by the clean picture: for training among the steps that were taken, for closed forms among many more. "
        "*Alignment* is the share of the energy of the clean picture, in gray and less its mean, in the span of the "
        "leading eigenvectors; *kernel-target alignment* is x^T Theta x / (|x|^2 |Theta|_F). Norms of kernels are "
        "estimated from products with random vectors. Changes of the kernel over the width are taken where the loss is "
        "the same for all networks of an architecture, linearly between recorded steps.\n\n"
        f"{architectures.DESCRIPTION}"
    )
    cases = _cases(records)
    if not cases:
        return paragraph
    settings = records[0].settings
    psnr = {
        "exact_filter": "exact kernel",
        "refined_filter": "exact, refined",
        "start_filter": "kernel at the start",
        "gd": "gradient descent",
        "gd_filter": "kernel after it",
        "adam": "Adam",
        "adam_filter": "kernel after it",
    }
    first = table(
        ["PSNR (dB), mean over the seeds", *psnr.values()],
        [
            [
                f"{_case_title(case)}, width {group[0].settings['width']}",
                *(f"{_mean(group, f'{key}_psnr'):.2f}" if f"{key}_psnr" in group[0].values else "-" for key in psnr),
            ]
            for case, group in cases.items()
        ],
    )
    head = ["kernel, mean over the seeds"]
    head += [f"alignment ({settings['eigenvectors']}): start", "gradient descent", "Adam", "kernel-target: start"]
    head += ["gradient descent", "Adam", "change: gradient descent", "Adam"]
    second = table(
        head,
        [
            [
                _case_title(case),
                *(f"{_mean(group, f'{kernel}_alignment'):.3f}" for kernel in KERNELS),
                *(f"{_mean(group, f'{kernel}_kernel_alignment'):.3f}" for kernel in KERNELS),
                *(f"{_mean(group, f'{optimizer}_change'):.1%}" for optimizer in OPTIMIZERS),
            ]
            for case, group in cases.items()
        ],
    )
    cut = last_allowed(
        {
            f"{OPTIMIZER_TITLES[optimizer]}, {_case_title(case)}, width {width}": [
                r.values[f"{optimizer}_steps"] == r.settings["most_steps"] for r in group
            ]
            for optimizer in OPTIMIZER_TITLES
            for (case, width), group in _by_width(records).items()
            if f"{optimizer}_steps" in group[0].values
        }
    )
    return (
        f"{paragraph}\n\n"
        f"At the main widths, {settings['side']} x {settings['side']} pixels, at most {settings['most_steps']} steps "
        "of training:\n\n"
        f"{first}\n\n"
        f"{second}\n\n"
        f"Among the steps of training, at all widths: {cut}"
    )


EXPERIMENT = Experiment(
    name="adam",
    title="Adam, and the kernel that adapts",
    version=3,
    units=units,
    run=run,
    figures=figures,
    claims=claims,
    text=text,
)
