"""The report: every claim with what was measured and its verdict, the figures and the settings, as Markdown."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.paper.experiment import HOLDS, IN_PART, NOT_RUN, Claim, Experiment, Picture

INTRODUCTION = """\
The paper is J. Tachella, J. Tang, M. Davies, *The Neural Tangent Link Between CNN Denoisers and Non-Local Filters*,
CVPR 2021 ([arXiv 2006.02379](https://arxiv.org/abs/2006.02379)). It says that a convolutional network trained by
gradient descent on one noisy image acts as a fixed filter given by its neural tangent kernel, that this filter is
non-local if the noisy image is the input and a low-pass if noise is, and that Adam departs from it. Each claim stands
here beside what was measured, and the verdict is computed from the figures: *holds* if all checks agree, *holds in
part* if some do, *does not hold* if none does. The bounds of the checks are ours unless a claim says otherwise."""


@dataclass(frozen=True)
class Part:
    """What an experiment contributes: its claims, its pictures, its text, and where the results are from."""

    experiment: Experiment
    claims: Sequence[Claim]
    pictures: Sequence[Picture]
    text: str
    origin: dict[str, Any]
    expected: int


def markdown(parts: Sequence[Part], scale: str, images: str) -> str:
    """The report.

    Parameters
    ----------
    parts : sequence of Part
        In the order of the registry, whose places number the claims.
    scale : str
        Name of the scale.
    images : str
        Where the figures lie, relative to the page: "" or a folder with a slash at the end.
    """
    lines = ["# The paper's claims, measured", "", INTRODUCTION, ""]
    lines += [f"Made by `python -m bench.paper --scale {scale}`. {_origins(parts)}", ""]
    lines += ["| claim | | verdict |", "|---|---|---|"]
    for number, part in enumerate(parts, 1):
        lines += [
            f"| {number}.{n} | {_cell(claim.statement)} | **{claim.verdict}** |"
            for n, claim in enumerate(part.claims, 1)
        ]
    for number, part in enumerate(parts, 1):
        lines += ["", f"## {number}. {part.experiment.title}", ""]
        if part.text:
            lines += [part.text.strip(), ""]
        if part.origin["units"] < part.expected:
            lines += [f"Of {part.expected} units of work {part.origin['units']} have a result.", ""]
        for n, claim in enumerate(part.claims, 1):
            lines += [*_claim(f"{number}.{n}", claim, part.pictures), ""]
        for picture in part.pictures:
            lines += [f"![{picture.name}]({images}{picture.name}.png)", "", picture.caption, ""]
        lines.pop()
    return "\n".join(_wrapped(line) for block in lines for line in block.split("\n")) + "\n"


def summary(parts: Sequence[Part]) -> str:
    """Number, verdict and statement of every claim, one a line."""
    return "\n".join(
        f"{number}.{n}  {claim.verdict:<{len(NOT_RUN)}}  {claim.statement}"
        for number, part in enumerate(parts, 1)
        for n, claim in enumerate(part.claims, 1)
    )


def write(path: Path, parts: Sequence[Part], scale: str, pictures: Path) -> None:
    """Write the figures into the folder ``pictures``, at or below that of ``path``, and the report to ``path``."""
    from ntkfast.figures import render

    pictures.mkdir(parents=True, exist_ok=True)
    for part in parts:
        for picture in part.pictures:
            (pictures / f"{picture.name}.png").write_bytes(render(picture.figure, "png"))
    below = pictures.relative_to(path.parent).as_posix()
    path.write_text(markdown(parts, scale, "" if below == "." else f"{below}/"))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; columns but the first are flush right."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _claim(number: str, claim: Claim, pictures: Sequence[Picture]) -> list[str]:
    shown = f" (figure `{claim.figure}`)" if claim.figure in {picture.name for picture in pictures} else ""
    lines = [f"**Claim {number}.** {claim.statement}{shown}", ""]
    lines += [f"- {'agrees' if check.passed else 'does not agree'}: {check.measured}" for check in claim.checks]
    lines += [f"- verdict: **{claim.verdict}**, {_short_reason(claim)}"]
    return [*lines, "", claim.remark] if claim.remark else lines


def _short_reason(claim: Claim) -> str:
    """As ``Claim.reason``, without the words of the checks, which stand above it."""
    if claim.verdict in (HOLDS, NOT_RUN):
        return claim.reason
    agree = sum(check.passed for check in claim.checks)
    if claim.verdict == IN_PART:
        return f"{agree} of {len(claim.checks)} checks agree"
    return "no check agrees" if len(claim.checks) > 1 else "the check does not agree"


def _origins(parts: Sequence[Part]) -> str:
    origins = [part.origin for part in parts if part.origin["units"]]
    if not origins:
        return "Nothing has run yet."
    machines = {_machine(m) for origin in origins for m in origin["machines"]}
    commits = sorted({c[:10] + ("+changes" if c.endswith("+changes") else "") for o in origins for c in o["commits"]})
    days = sorted({day for origin in origins for day in origin["days"]})
    seconds = sum(origin["seconds"] for origin in origins)
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return (
        f"{sum(origin['units'] for origin in origins)} units of work, {seconds:.0f} s in all, on "
        f"{'; '.join(sorted(machines))}; {when}, commit {', '.join(commits)}."
    )


def _machine(m: dict[str, Any]) -> str:
    card = "" if m["device"] == "cpu" else f", {m['device']}"
    return f"{m['cpu']} ({m['threads']} thread{'' if m['threads'] == 1 else 's'}){card}"


def _wrapped(line: str) -> str:
    """A line of prose or of a list broken at 120 columns; tables, pictures and headings as they are."""
    if line.startswith(("|", "!", "#")):
        return line
    indent = "  " if line.startswith("- ") else ""
    return textwrap.fill(line, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")
