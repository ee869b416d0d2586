"""The report: every claim with what was measured and its verdict, the figures and the settings, as Markdown."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.paper.experiment import FAILS, HOLDS, IN_PART, NOT_RUN, Claim, Experiment, Picture

TITLE = "# What the paper claims and what else was asked, measured"
INTRODUCTION = """\
The paper is J. Tachella, J. Tang, M. Davies, *The Neural Tangent Link Between CNN Denoisers and Non-Local Filters*,
CVPR 2021 ([arXiv 2006.02379](https://arxiv.org/abs/2006.02379)). It says that a convolutional network trained by
gradient descent on one noisy image acts as a fixed filter given by its neural tangent kernel, that this filter is
non-local if the noisy image is the input and a low-pass if noise is, and that Adam departs from it. Each claim stands
here beside what was measured. Its source is *paper* if the paper says it or reports figures that do, and *ours* if it
is what else was asked. Also in claims of the paper all bounds are ours, but for the exponents of part 2, and so are the
networks, pictures and sizes. The verdict is computed from the figures: *holds* if all checks agree, *holds in part* if
some do, *does not hold* if none does. Verdicts use the figures as they are. After ± stands one standard error, over
draws of the networks' weights with one picture and one draw of its noise, unless the text says otherwise."""
COMMAND = "python -m bench.paper --scale"


@dataclass(frozen=True)
class Part:
    """What an experiment contributes: its claims, its pictures, its text, and where the results are from."""

    experiment: Experiment
    claims: Sequence[Claim]
    pictures: Sequence[Picture]
    text: str
    origin: dict[str, Any]
    expected: int

    @property
    def incomplete(self) -> bool:
        """Whether units of work have no result, so that verdicts may lack checks."""
        return bool(self.origin["units"] < self.expected)

    def verdict(self, claim: Claim) -> str:
        """Of one of its claims, with a mark if it is of a part of the results."""
        return claim.verdict + INCOMPLETE if self.incomplete and claim.checks else claim.verdict


INCOMPLETE = " (incomplete)"


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
    lines = [TITLE, "", INTRODUCTION, ""]
    lines += [f"Made by `{COMMAND} {scale}`. {_origins(parts)}", ""]
    lines += ["| claim | | source | verdict |", "|---|---|---|---|"]
    for number, part in enumerate(parts, 1):
        lines += [
            f"| {number}.{n} | {_cell(claim.statement)} | {claim.source} | **{part.verdict(claim)}** |"
            for n, claim in enumerate(part.claims, 1)
        ]
    for number, part in enumerate(parts, 1):
        lines += ["", f"## {number}. {part.experiment.title}", ""]
        if part.text:
            lines += [part.text.strip(), ""]
        if part.incomplete:
            words = f"Of {part.expected} units of work {part.origin['units']} have a result. Verdicts that are marked "
            lines += [words + "as incomplete are of these alone.", ""]
        for n, claim in enumerate(part.claims, 1):
            lines += [*_claim(f"{number}.{n}", claim, part), ""]
        for picture in part.pictures:
            lines += [f"![{picture.name}]({images}{picture.name}.png)", "", picture.caption, ""]
        lines.pop()
    return "\n".join(_wrapped(line) for block in lines for line in block.split("\n")) + "\n"


def summary(parts: Sequence[Part]) -> str:
    """Number, verdict, source and statement of every claim, one a line."""
    width = max(len(text) for text in (NOT_RUN, *(verdict + INCOMPLETE for verdict in (HOLDS, IN_PART, FAILS))))
    return "\n".join(
        f"{number}.{n}  {part.verdict(claim):<{width}}  {claim.source:<5}  {claim.statement}"
        for number, part in enumerate(parts, 1)
        for n, claim in enumerate(part.claims, 1)
    )


def write(path: Path, parts: Sequence[Part], scale: str, pictures: Path) -> None:
    """Write the figures into the folder ``pictures``, at or below that of ``path``, and the report to ``path``."""
    from ntkfast.app.figures import render

    pictures.mkdir(parents=True, exist_ok=True)
    for part in parts:
        for picture in part.pictures:
            (pictures / f"{picture.name}.png").write_bytes(render(picture.figure, "png"))
    path.write_text(markdown(parts, scale, _below(pictures, path)))


def _below(pictures: Path, page: Path) -> str:
    """The folder of the figures as the page links it."""
    below = pictures.relative_to(page.parent).as_posix()
    return "" if below == "." else f"{below}/"


def publish(path: Path, parts: Sequence[Part], scale: str, pictures: Path, rendered: Path) -> None:
    """Write the report in place of an earlier one, whose figures that this one has not are deleted.

    Parameters
    ----------
    path, parts, scale, pictures
        As :func:`write`.
    rendered : Path
        Folder into which :func:`write` has put the figures.
    """
    pictures.mkdir(parents=True, exist_ok=True)
    names = {f"{picture.name}.png" for part in parts for picture in part.pictures}
    for name in names:
        shutil.copyfile(rendered / name, pictures / name)
    for old in set(pictures.glob("*.png")) - {pictures / name for name in names}:
        old.unlink()
    path.write_text(markdown(parts, scale, _below(pictures, path)))


def scale_of(path: Path) -> str | None:
    """Name of the scale that the report in a file was made at; None without a file, or if it does not say."""
    found = re.search(f"{re.escape(COMMAND)} (\\w+)", " ".join(path.read_text().split())) if path.exists() else None
    return found[1] if found else None


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; columns but the first are flush right."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def last_allowed(cases: Mapping[str, Sequence[bool]]) -> str:
    """Half a sentence on the cases, given with whether each result's best step was the last that was looked at."""
    cut = [f"{title} ({sum(results)} of {len(results)})" for title, results in cases.items() if any(results)]
    if not cut:
        return "no best step is the last allowed."
    return f"the best step is the last allowed, and a later one might be better, in {'; '.join(cut)}."


def _claim(number: str, claim: Claim, part: Part) -> list[str]:
    shown = f" (figure `{claim.figure}`)" if claim.figure in {picture.name for picture in part.pictures} else ""
    lines = [f"**Claim {number}** ({claim.source}). {claim.statement}{shown}", ""]
    lines += [f"- {'agrees' if check.passed else 'does not agree'}: {check.measured}" for check in claim.checks]
    lines += [f"- verdict: **{part.verdict(claim)}**, {_short_reason(claim)}"]
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
