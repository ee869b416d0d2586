"""The report: every claim with what was measured and its verdict, the figures and the settings, as Markdown."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments import summaries
from experiments.experiment import FAILS, HOLDS, IN_PART, NOT_RUN, Experiment, Finding, Picture, Summary
from experiments.store import replace_file

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
COMMAND = "python -m experiments --scale"


@dataclass(frozen=True)
class Part:
    """An experiment contributes findings, pictures and text, and says how many of its units have a result."""

    experiment: Experiment
    findings: Sequence[Finding]
    pictures: Sequence[Picture]
    text: str
    units: int
    expected: int

    @property
    def incomplete(self) -> bool:
        """Tell whether units of work have no result, so that verdicts may lack checks."""
        return self.units < self.expected

    def verdict(self, finding: Finding) -> str:
        """Return the verdict of one of its findings, with a mark if it is of a part of the results."""
        return finding.verdict + INCOMPLETE if self.incomplete and finding.checks else finding.verdict


@dataclass(frozen=True)
class Report:
    """All parts, in the order of the registry, whose places number the claims; and where the results are from.

    Attributes
    ----------
    scale : str
        Its name.
    machines : sequence of dict
        As :func:`bench.machine.description` has them, and ``device``.
    commits, days : sequence of str
    seconds : float
        Of all units.
    """

    parts: Sequence[Part]
    scale: str
    machines: Sequence[dict[str, Any]] = ()
    commits: Sequence[str] = ()
    days: Sequence[str] = ()
    seconds: float = 0.0


def of_summary(
    summary: Summary, experiments: Sequence[Experiment], pictures: Mapping[str, Sequence[Picture]]
) -> Report:
    """The report that a summary gives, with the pictures that there are, by experiment."""
    parts, seconds = [], 0.0
    for experiment in experiments:
        entry = summaries.of_experiment(summary, experiment)
        own, seconds = entry["summary"], seconds + entry["seconds"]
        shown = pictures.get(experiment.name, ())
        counts = (entry["units"], entry["expected"])
        parts.append(Part(experiment, experiment.findings(own), shown, experiment.text(own), *counts))
    return Report(parts, summary["scale"], summary["machines"], summary["commits"], summary["days"], seconds)


INCOMPLETE = " (incomplete)"


def markdown(report: Report, images: str) -> str:
    """The report as a page.

    Parameters
    ----------
    report : Report
    images : str
        Where the figures lie, relative to the page: "" or a folder with a slash at the end.
    """
    lines = [TITLE, "", INTRODUCTION, ""]
    lines += [f"Made by `{COMMAND} {report.scale}`. {_origin(report)}", ""]
    lines += ["| claim | | source | verdict |", "|---|---|---|---|"]
    for number, part in enumerate(report.parts, 1):
        lines += [
            f"| {number}.{n} | {_cell(finding.statement)} | {finding.source} | **{part.verdict(finding)}** |"
            for n, finding in enumerate(part.findings, 1)
        ]
    for number, part in enumerate(report.parts, 1):
        lines += ["", f"## {number}. {part.experiment.title}", ""]
        if part.text:
            lines += [part.text.strip(), ""]
        if part.incomplete:
            words = f"Of {part.expected} units of work {part.units} have a result. Verdicts that are marked "
            lines += [words + "as incomplete are of these alone.", ""]
        for n, finding in enumerate(part.findings, 1):
            lines += [*_finding(f"{number}.{n}", finding, part), ""]
        for picture in part.pictures:
            lines += [f"![{picture.name}]({images}{picture.name}.png)", "", picture.caption, ""]
        lines.pop()
    return wrapped("\n".join(lines)) + "\n"


def overview(report: Report) -> str:
    """Number, verdict, source and statement of every claim, one a line."""
    width = max(len(text) for text in (NOT_RUN, *(verdict + INCOMPLETE for verdict in (HOLDS, IN_PART, FAILS))))
    return "\n".join(
        f"{number}.{n}  {part.verdict(finding):<{width}}  {finding.source:<5}  {finding.statement}"
        for number, part in enumerate(report.parts, 1)
        for n, finding in enumerate(part.findings, 1)
    )


def write(path: Path, report: Report, pictures: Path) -> None:
    """Write the figures into the folder ``pictures``, at or below that of ``path``, and the report to ``path``."""
    pictures.mkdir(parents=True, exist_ok=True)
    for part in report.parts:
        for picture in part.pictures:
            picture.figure.savefig(pictures / f"{picture.name}.png", dpi=150, bbox_inches="tight")
    path.write_text(markdown(report, _below(pictures, path)))


def _below(pictures: Path, page: Path) -> str:
    """The folder of the figures as the page links it."""
    below = pictures.relative_to(page.parent).as_posix()
    return "" if below == "." else f"{below}/"


def publish(path: Path, report: Report, pictures: Path, rendered: Path, appendix: str = "") -> None:
    """Write the report in place of an earlier one, whose figures that this one has not are deleted.

    Parameters
    ----------
    path, report, pictures
        As :func:`write`.
    rendered : Path
        Folder into which :func:`write` has put the figures.
    appendix : str
        A section of Markdown for the end of the page.
    """
    pictures.mkdir(parents=True, exist_ok=True)
    names = {f"{picture.name}.png" for part in report.parts for picture in part.pictures}
    for name in names:
        shutil.copyfile(rendered / name, pictures / name)
    for old in set(pictures.glob("*.png")) - {pictures / name for name in names}:
        old.unlink()
    page = markdown(report, _below(pictures, path))
    replace_file(path, lambda part: part.write_text(with_section(page, appendix)))


def with_section(page: str, section: str) -> str:
    """Return a page with a section at its end, in place of one with the same heading and all behind it."""
    if not section:
        return page
    heading = section.split("\n", 1)[0]
    kept = page.split(f"\n{heading}\n", 1)[0].rstrip("\n")
    return f"{kept}\n\n{wrapped(section)}\n"


def scale_of(path: Path) -> str | None:
    """Name of the scale that the report in a file was made at; None without a file, or if it does not say."""
    found = re.search(f"{re.escape(COMMAND)} (\\w+)", " ".join(path.read_text().split())) if path.exists() else None
    return found[1] if found else None


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; columns but the first are flush right."""
    lines = ["| " + " | ".join(header) + " |", "|---|" + "---:|" * (len(header) - 1)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def last_allowed(cases: Mapping[str, Sequence[int]]) -> str:
    """Half a sentence on cases, given with in how many results the best step was the last looked at, and results."""
    found = [f"{title} ({cut} of {results})" for title, (cut, results) in cases.items() if cut]
    if not found:
        return "no best step is the last allowed."
    return f"the best step is the last allowed, and a later one might be better, in {'; '.join(found)}."


def _finding(number: str, finding: Finding, part: Part) -> list[str]:
    shown = f" (figure `{finding.figure}`)" if finding.figure in {picture.name for picture in part.pictures} else ""
    lines = [f"**Claim {number}** ({finding.source}). {finding.statement}{shown}", ""]
    lines += [f"- {'agrees' if check.passed else 'does not agree'}: {check.measured}" for check in finding.checks]
    lines += [f"- verdict: **{part.verdict(finding)}**, {_short_reason(finding)}"]
    return [*lines, "", finding.remark] if finding.remark else lines


def _short_reason(finding: Finding) -> str:
    """As ``Finding.reason``, without the words of the checks, which stand above it."""
    if finding.verdict in (HOLDS, NOT_RUN):
        return finding.reason
    agree = sum(check.passed for check in finding.checks)
    if finding.verdict == IN_PART:
        return f"{agree} of {len(finding.checks)} checks agree"
    return "no check agrees" if len(finding.checks) > 1 else "the check does not agree"


def _origin(report: Report) -> str:
    units = sum(part.units for part in report.parts)
    if not units:
        return "Nothing has run yet."
    return origin(units, report.seconds, report.machines, report.commits, report.days)


def origin(
    units: int, seconds: float, machines: Sequence[dict[str, Any]], commits: Sequence[str], days: Sequence[str]
) -> str:
    """Say in a sentence where results are from, by what :meth:`experiments.store.Store.origin` has of them."""
    names = sorted({_machine(machine) for machine in machines})
    changed = "+changes"
    short = sorted({c[:10] + (changed if c.endswith(changed) else "") for c in commits})
    when = days[0] if len(days) == 1 else f"{days[0]} to {days[-1]}"
    return f"{units} units of work, {seconds:.0f} s in all, on {'; '.join(names)}; {when}, commit {', '.join(short)}."


def _machine(m: dict[str, Any]) -> str:
    card = "" if m["device"] == "cpu" else f", {m['device']}"
    return f"{m['cpu']} ({m['threads']} thread{'' if m['threads'] == 1 else 's'}){card}"


def wrapped(text: str) -> str:
    """Break the prose and the lists of Markdown at 120 columns."""
    return "\n".join(_wrapped(line) for line in text.split("\n"))


def _wrapped(line: str) -> str:
    """A line of prose or of a list broken at 120 columns; tables, pictures and headings as they are."""
    if line.startswith(("|", "!", "#")):
        return line
    indent = "  " if line.startswith("- ") else ""
    return textwrap.fill(line, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")
