"""How the kernel changes, and what the fixed and the adapted one explain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from experiments.adam.measure import FAST
from experiments.architectures import ADAM_RATE, FAST_ADAM_RATE, INPUT_LABELS, LABELS
from experiments.experiment import OURS, PAPER, Check, Claim, Summary
from experiments.fits import slope_text

FEWER_STEPS = (
    "With small steps of the order of one over the width, a wide network needs fewer of them to the same loss, and its "
    "weights and its kernel have moved less by then (see the experiment on the orders of the changes). What the widths "
    "run here show is between the limits: narrow networks are far from that of infinite width under any optimizer."
)
NARROW = (
    "At this width the fixed kernel does not explain gradient descent through the autoencoder well either: its "
    "distance falls as the width grows (see the experiment on gradient descent and the filter)."
)

OPTIMIZER_TITLES = {"gd": "gradient descent", "adam": "Adam", FAST: f"Adam, {FAST_ADAM_RATE:g}/width"}
RATES = {"adam": ADAM_RATE, FAST: FAST_ADAM_RATE}  # times the width

# Bounds of the claims.
SETTLES = -0.3  # exponent of the width in the change of the kernel by gradient descent, at most
STAYS = -0.25  # that in the change by Adam, at least
LAZY = 0.1  # relative distance of gradient descent's output to the fixed filters, above which it is not explained
FURTHER = 2.0  # distance of Adam's output to the fixed filters over that of gradient descent's
EXPLAINED = 0.5  # dB between Adam's output and the closed form of the adapted kernel, or of the refined one
NEARER = 0.5  # distance of Adam's output to the filter of the adapted kernel over that to the filter of the start's


def over_width(summary: Summary) -> Iterator[tuple[str, dict[str, Any]]]:
    """Label of an architecture, and what was found by optimizer."""
    for name, found in summary.get("over_width", {}).items():
        yield LABELS[name], found


def by_case(summary: Summary) -> Iterator[tuple[str, dict[str, Any]]]:
    """Title of a network and an input, and what was found at the main width."""
    for name, inputs in summary.get("cases", {}).items():
        for source, found in inputs.items():
            yield case_title(name, source), found


def case_title(name: str, source: str) -> str:
    """Network and input in words."""
    return f"{LABELS[name]}, {INPUT_LABELS[source]}"


def settles(summary: Summary) -> list[Check]:
    """The law of the change under gradient descent."""
    found = []
    for label, own in over_width(summary):
        exponent, end = own["gd"]["exponent"], own["gd"]["change"]
        measured = f"{label}: exponent {slope_text(exponent)}, {end:.1%} at width {own['width']}"
        found.append(Check(measured, exponent[0] <= SETTLES))
    return found


def stays(summary: Summary) -> list[Check]:
    """The law of the change under Adam, and its size beside that under gradient descent."""
    found = []
    for label, own in over_width(summary):
        end = own["gd"]["change"]
        for optimizer, rate in RATES.items():
            if optimizer in own:
                exponent, change = own[optimizer]["exponent"], own[optimizer]["change"]
                measured = f"{label}, {rate:g}/width: exponent {slope_text(exponent)}, {change:.1%} at width "
                measured += f"{own['width']} (gradient descent: {end:.1%})"
                found.append(Check(measured, exponent[0] >= STAYS and change > end))
    return found


def fewer_steps(summary: Summary, checks: Sequence[Check]) -> str:
    """Why the change under Adam falls with the width, if it does."""
    return "" if all(check.passed for check in checks) else FEWER_STEPS


def unexplained(summary: Summary) -> list[Check]:
    """How far the outputs are from the filters of the kernel at the start."""
    found = []
    for label, own in over_width(summary):
        near = own["gd"]
        for optimizer, rate in RATES.items():
            if optimizer in own:
                far = own[optimizer]
                measured = f"{label}, width {own['width']}: Adam with {rate:g}/width {far['distance']:.1%} "
                measured += f"({far['psnr']:.2f} dB at its best), gradient descent {near['distance']:.1%} "
                measured += f"({near['psnr']:.2f} dB)"
                found.append(Check(measured, far["distance"] >= FURTHER * near["distance"]))
    return found


def narrow(summary: Summary, checks: Sequence[Check]) -> str:
    """That gradient descent is not near its filter either, if it is not."""
    return NARROW if any(own["gd"]["distance"] >= LAZY for _, own in over_width(summary)) else ""


def aligned(summary: Summary) -> list[Check]:
    """Both measures of the kernel's alignment with the picture."""
    return [
        _alignment_check(f"{title}, {words}", found[key], found["seeds"])
        for title, found in by_case(summary)
        for key, words in (("alignment", "span"), ("kernel_alignment", "kernel-target"))
    ]


def adapted(summary: Summary) -> list[Check]:
    """The PSNR of the adapted kernel's filter, and how far its output is from the network's."""
    found = []
    for title, case in by_case(summary):
        trained, closed, fixed = (case["psnr"][name] for name in ("adam", "adam_filter", "start_filter"))
        near, far = (case["distance_from_adam"][name] for name in ("filter", "start_filter"))
        found += [
            Check(
                f"{title}: adapted kernel {closed:.2f} dB, Adam {trained:.2f} dB, kernel of the start {fixed:.2f} dB",
                abs(closed - trained) <= EXPLAINED and abs(closed - trained) <= abs(fixed - trained),
            ),
            Check(
                f"{title}: the adapted kernel's output is {near:.1%} from Adam's, that of the start's kernel {far:.1%}",
                near <= NEARER * far,
            ),
        ]
    return found


def counterpart(summary: Summary) -> list[Check]:
    """The PSNR of the refining pass beside that of the adapted kernel's filter."""
    found = []
    for title, psnr in _refined(summary):
        refined, closed = psnr["refined_filter"], psnr["adam_filter"]
        measured = f"{title}: refining pass {refined:.2f} dB, adapted kernel {closed:.2f} dB"
        found.append(Check(measured, abs(refined - closed) <= EXPLAINED))
    return found


def _refined(summary: Summary) -> list[tuple[str, dict[str, float]]]:
    """PSNRs of the cases that have a refining pass."""
    return [(title, case["psnr"]) for title, case in by_case(summary) if "refined_filter" in case["psnr"]]


def _alignment_check(title: str, found: dict[str, float], seeds: int) -> Check:
    """One measure after Adam against the others', seed by seed."""
    least = [found["least_above_start"], found["least_above_gd"]]
    return Check(
        f"{title}: {found['start']:.3f} at the start, {found['adam']:.3f} after Adam, {found['gd']:.3f} after "
        f"gradient descent; Adam less the start at least {least[0]:+.4f}, less gradient descent {least[1]:+.4f} "
        f"({seeds} seed{'s' if seeds > 1 else ''})",
        min(least) > 0,
    )


def how_far_turned(summary: Summary, checks: Sequence[Check]) -> str:
    """How far the kernels have moved, which bounds how far their eigenvectors turn; and what the measures differ in."""
    moved = "; ".join(
        f"{title} {case['change']['adam']:.1%} (gradient descent {case['change']['gd']:.1%})"
        for title, case in by_case(summary)
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


def what_differs(summary: Summary, checks: Sequence[Check]) -> str:
    """Say how a network that Adam trains differs from any fixed kernel."""
    if all(check.passed for check in checks):
        return ""
    changes = ", ".join(f"{title} {case['change']['adam']:.1%}" for title, case in by_case(summary))
    return (
        "Adam weighs every parameter's gradient by a factor of its own, so that its output does not follow "
        "z' = Theta (y - z) for the tangent kernel Theta of any time. In closed form the adapted kernel takes up what "
        "was learnt, but not the path to it; and it can be nearer than the kernel of the start only as far as the "
        f"kernel has changed until Adam's best step: {changes}."
    )


def other_starts(summary: Summary, checks: Sequence[Check]) -> str:
    """How far the exact kernel is from the network's own before either has been adapted."""
    if all(check.passed for check in checks):
        return ""
    gaps = ", ".join(
        f"{title} {psnr['exact_filter'] - psnr['start_filter']:+.2f} dB" for title, psnr in _refined(summary)
    )
    return (
        "The refining pass starts from the kernel of infinite width, Adam from that of a finite network. The exact "
        f"kernel over the network's own at the start, before either is adapted: {gaps}."
    )


CLAIMS = (
    Claim(
        statement="Under gradient descent the kernel settles: its relative change until a given loss falls with the "
        f"width, with an exponent of at most {SETTLES:g} (noisy image as input).",
        source=OURS,
        checks=settles,
        figure="adam_change",
    ),
    Claim(
        statement="Under Adam, with a learning rate of one over the width, the kernel adapts while the network trains: "
        "until the same loss it changes more than under gradient descent, with an exponent of at least "
        f"{STAYS:g} (the exponent is ours).",
        source=PAPER,
        checks=stays,
        figure="adam_change",
        remark=fewer_steps,
    ),
    Claim(
        statement=f"A fixed kernel does not explain Adam: its best output is at least {FURTHER:g} times as far from "
        "the filters of the kernel at the start, at any time, as that of gradient descent (relative distance, "
        "largest width, noisy image as input).",
        source=PAPER,
        checks=unexplained,
        remark=narrow,
    ),
    Claim(
        statement="Adam turns the kernel towards the picture: for every seed more of the clean picture lies in the "
        "span of its leading eigenvectors than at the start and than after gradient descent, and the kernel-target "
        "alignment is higher.",
        source=OURS,
        checks=aligned,
        figure="adam_eigenvectors",
        remark=how_far_turned,
    ),
    Claim(
        statement="The adapted kernel explains Adam: in closed form, from zero, it denoises as well as the network "
        f"that Adam trained, within {EXPLAINED:g} dB, and comes nearer to that PSNR than the kernel of the start; and "
        f"its output is at most {NEARER:g} times as far from that of the network as the output of the start's "
        "kernel is (relative distance, mean over the seeds).",
        source=OURS,
        checks=adapted,
        figure="adam_psnr",
        remark=what_differs,
    ),
    Claim(
        statement="The refining pass, in which the exact kernel is built again from its first result, is the "
        "closed-form counterpart of the kernel that Adam adapts: with the noisy image as input both denoise alike, "
        f"within {EXPLAINED:g} dB.",
        source=OURS,
        checks=counterpart,
        figure="adam_psnr",
        remark=other_starts,
    ),
)
