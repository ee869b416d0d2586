"""The settings of the experiment in words, and the tables of PSNRs and of what happened to the kernels."""

from __future__ import annotations

from experiments import architectures
from experiments.adam.claims import OPTIMIZER_TITLES, by_case, case_title
from experiments.adam.measure import OPTIMIZERS, PICTURE
from experiments.adam.summary import KERNELS
from experiments.experiment import Summary
from experiments.report import last_allowed, table

PSNR = {
    "exact_filter": "exact kernel",
    "refined_filter": "exact, refined",
    "start_filter": "kernel at the start",
    "gd": "gradient descent",
    "gd_filter": "kernel after it",
    "adam": "Adam",
    "adam_filter": "kernel after it",
}


def text(summary: Summary) -> str:
    """Settings, both tables, and where training might have gone on."""
    paragraph = _settings()
    if not summary.get("cases"):
        return paragraph
    cut = last_allowed(
        {
            f"{OPTIMIZER_TITLES[optimizer]}, {case_title(name, source)}, width {width}": count
            for optimizer, networks in summary["last_allowed"].items()
            for name, inputs in networks.items()
            for source, widths in inputs.items()
            for width, count in widths.items()
        }
    )
    return (
        f"{paragraph}\n\n"
        f"At the main widths, {summary['side']} x {summary['side']} pixels, at most {summary['most_steps']} steps "
        "of training:\n\n"
        f"{_quality(summary)}\n\n"
        f"{_kernels(summary)}\n\n"
        f"Among the steps of training, at all widths: {cut}"
    )


def _settings() -> str:
    return (
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


def _quality(summary: Summary) -> str:
    """Table of the PSNRs."""
    rows = [
        [
            f"{title}, width {case['width']}",
            *(f"{case['psnr'][name]:.2f}" if name in case["psnr"] else "-" for name in PSNR),
        ]
        for title, case in by_case(summary)
    ]
    return table(["PSNR (dB), mean over the seeds", *PSNR.values()], rows)


def _kernels(summary: Summary) -> str:
    """Table of alignments and changes."""
    head = ["kernel, mean over the seeds"]
    head += [f"alignment ({summary['eigenvectors']}): start", "gradient descent", "Adam", "kernel-target: start"]
    head += ["gradient descent", "Adam", "change: gradient descent", "Adam"]
    rows = [
        [
            title,
            *(f"{case['alignment'][kernel]:.3f}" for kernel in KERNELS),
            *(f"{case['kernel_alignment'][kernel]:.3f}" for kernel in KERNELS),
            *(f"{case['change'][optimizer]:.1%}" for optimizer in OPTIMIZERS),
        ]
        for title, case in by_case(summary)
    ]
    return table(head, rows)
