"""The section of the report: settings in words, and the table of the ten cases."""

from __future__ import annotations

from typing import Any

from experiments import architectures, report
from experiments.architectures import INPUT_LABELS, INPUTS, LABELS
from experiments.experiment import Summary
from experiments.picture.reading import MEANS
from experiments.report import table
from experiments.table.claims import ON_HOUSE
from experiments.table.summary import METHODS

HEADING = "## The paper's ten cases on a picture of one's own"
COMMAND = "python -m experiments --picture PATH"
MARK = "†"  # behind a best step that is the last one
ROWS = {"closed": "closed form", "trained": "finite network"}
TITLES = METHODS | {"nystrom": "Nystrom"}

UNKNOWN = (
    "The noise level, the kernel sizes, the widths and the numbers of steps behind the paper's row are not known here, "
    "nor which version of *House* it is of: the values stand beside ours and cannot be expected to be equal."
)


def section(summary: Summary) -> str:
    """Markdown, whose first line is the heading."""
    parts = [HEADING, _settings(summary), _table(summary), _below(), UNKNOWN]
    return "\n\n".join(parts)


def _settings(summary: Summary) -> str:
    asked = summary["picture"]
    height, width, channels = asked["shape"]
    networks = " and ".join(
        f"{LABELS[name]} `{entry['call']}`, {entry['width']} channels wide where it is finite"
        for name, entry in asked["networks"].items()
    )
    return (
        f"The picture is {asked['title']}: {height} x {width} pixels, {_colours(channels)}, with noise of standard "
        f"deviation {asked['sigma']:g} of 255, not clipped, which leaves {summary['noisy']:.2f} dB. Made by `{COMMAND} "
        f"--sigma {asked['sigma']:g} --budget {asked['minutes']:g}`: "
        f"{report.origin(*(summary[name] for name in ('units', 'seconds', 'machines', 'commits', 'days')))}\n\n"
        f"The networks are: {networks}. *Closed form* is gradient descent at infinite width with the exact kernel, and "
        f"for Nystrom with that of {asked['landmarks']} landmarks at random; Adam has none. *Finite network* is one "
        "network that is trained, until the budget ended. Noise as the input has "
        f"{asked['channels']} channels, the same draw for all. Gradient descent has a learning rate of one over the "
        "largest eigenvalue, of the exact kernel or of the network at its start, whichever is larger; Adam (0.9, "
        f"0.999) takes steps of {architectures.ADAM_RATE:g}/c for the effective weights. Outputs are less what they "
        f"were at the start. **The best of {asked['points']} numbers of steps up to {asked['most_steps']} is told by "
        "the clean picture.** The picture's mean is removed from the input and the target, or kept."
    )


def _colours(channels: int) -> str:
    return {1: "gray", 3: "colour"}.get(channels, f"{channels} channels")


def _table(summary: Summary) -> str:
    columns = list(dict.fromkeys(case[:2] for case in ON_HOUSE))
    head = ["PSNR (dB)", *(f"{TITLES[method]}, {LABELS[network]}" for method, network in columns)]
    rows = []
    for source in INPUTS:
        cases = [summary["cases"][f"{method}/{network}/{source}"] for method, network in columns]
        rows.append([f"{INPUT_LABELS[source]}: paper, *House*", *(f"{case['paper']:.1f}" for case in cases)])
        for mean in MEANS:
            for kind, title in ROWS.items():
                cells = [
                    _cell(method, kind, case[mean][kind]) for (method, _), case in zip(columns, cases, strict=True)
                ]
                rows.append([f"{INPUT_LABELS[source]}: {title}, mean {mean}", *cells])
    return table(head, rows)


def _cell(method: str, kind: str, found: dict[str, Any] | None) -> str:
    """PSNR at the best step, the number of that step, and for a training the number of all."""
    if kind == {"adam": "closed", "nystrom": "trained"}.get(method):
        return "-"
    if found is None:
        return "not reached"
    mark = MARK if found["last"] else ""
    steps = f"{found['steps']}{mark}" + (f" of {found['done']}" if kind == "trained" else "")
    return f"{found['psnr']:.2f} ({steps})"


def _below() -> str:
    return (
        "In brackets is the best number of steps, and for a finite network that of all steps taken. A † says that it "
        "is the last one looked at, so that a later one might be better; *not reached*, that the budget ended before a "
        "step could be looked at."
    )
