"""The settings of the experiment in words, the table, and the paper's figures beside ours."""

from __future__ import annotations

import math
from collections.abc import Mapping

from experiments import architectures
from experiments.architectures import ARCHITECTURES, INPUT_LABELS, INPUTS, LABELS
from experiments.experiment import Summary
from experiments.report import last_allowed, table
from experiments.table.claims import ON_HOUSE, last_steps, means
from experiments.table.measure import ANY_TIME, REFINED
from experiments.table.summary import METHODS, MORE, PEERS, Key, Mean


def text(summary: Summary) -> str:
    """Settings, means, where it would have gone on, the paper's figures."""
    if not summary:
        return _settings()
    found = means(summary)
    rows = [
        [title, *(_cell(found.get((method, network, source))) for network in ARCHITECTURES for source in INPUTS)]
        for method, title in (METHODS | MORE).items()
    ]
    head = [
        "PSNR (dB)",
        *(f"{LABELS[network]}, {INPUT_LABELS[source]}" for network in ARCHITECTURES for source in INPUTS),
    ]
    spread = "Mean over the pictures ± standard deviation over the pictures"
    spread += " (over the seeds of a picture)." if summary["seeds"] > 1 else "; one seed."
    peers = [
        f"{title} {_cell(found[peer,])}" if (peer,) in found else f"{title} left out, as it is not installed"
        for peer, title in PEERS.items()
    ]
    below = f"{spread} {'; '.join(peers)}."
    parts = [_settings(), _sizes(summary), table(head, rows), below, _cut(summary), _beside_the_paper(found)]
    return "\n\n".join(parts)


def _settings() -> str:
    return (
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


def _sizes(summary: Summary) -> str:
    names, seeds = summary["pictures"], summary["seeds"]
    return (
        f"{len(names)} pictures ({', '.join(names)}) of {summary['side']} x {summary['side']} pixels, reduction "
        f"{summary['reduction']}; at most {summary['most_steps']} steps, at any t {summary['any_time_steps']}; "
        f"Nystrom with {summary['landmarks']:.0%} of the pixels; {seeds} seed{'s' if seeds > 1 else ''}; widths "
        + ", ".join(f"{LABELS[network]} {width}" for network, width in summary["widths"].items())
        + "."
    )


def _cut(summary: Summary) -> str:
    """Where training, or a filter, would have gone on."""
    cases = {
        f"{title}, {LABELS[network]}, {INPUT_LABELS[source]}": last_steps(summary, method, network, source)
        for method, title in (METHODS | MORE).items()
        for network in ARCHITECTURES
        for source in INPUTS
    }
    return f"Counted over pictures and seeds, {last_allowed(cases)}"


def _cell(mean: Mean | None) -> str:
    if mean is None:
        return "-"
    cell = f"{mean.mean:.2f}"
    if not math.isnan(mean.pictures):
        cell += f" ± {mean.pictures:.1f}"
    return cell if math.isnan(mean.seeds) else f"{cell} ({mean.seeds:.2f})"


def _beside_the_paper(found: Mapping[Key, Mean]) -> str:
    columns = list(dict.fromkeys(case[:2] for case in ON_HOUSE))
    head = ["", *(f"{METHODS[method]}, {LABELS[network]}" for method, network in columns)]
    rows = []
    for source in INPUTS:
        cases = [(*column, source) for column in columns]
        rows.append([f"{INPUT_LABELS[source]}: here", *(f"{found[case].mean:.2f}" for case in cases)])
        rows.append([f"{INPUT_LABELS[source]}: paper, *House*", *(f"{ON_HOUSE[case]:.1f}" for case in cases)])
    return (
        "The ten figures of the paper (dB) stand below ours. **They are of another picture, *House*, and of settings "
        "that are not known here** (noise level, kernel sizes, widths, steps): only their order can be compared.\n\n"
        + table(head, rows)
    )
