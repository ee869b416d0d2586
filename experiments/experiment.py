"""An experiment is made of units of work, results, their summary, claims with verdicts, and figures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from experiments.layout import kept

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from experiments.scales import Scale

# A summary is all that results come to: JSON of numbers by what they are of, and empty without results.
Summary = dict[str, Any]

PAPER, OURS = "paper", "ours"
HOLDS, IN_PART, FAILS, NOT_RUN = "holds", "holds in part", "does not hold", "not run at this scale"


@dataclass(frozen=True)
class Unit:
    """A piece of work whose result is kept.

    Attributes
    ----------
    key : str
        Unique within the experiment, such as ``unet/width=64/seed=0``.
    settings : dict
        JSON: everything on which the result depends.
    """

    key: str
    settings: dict[str, Any]


@dataclass(frozen=True)
class Result:
    """A unit has found values as JSON, and arrays for the figures; its device stands here if the tools have another.

    Attributes
    ----------
    values : dict
    arrays : dict of str to ndarray
    device : str, optional
        Of PyTorch; None where the unit used ``tools.device``.
    """

    values: dict[str, Any]
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    device: str | None = None


@dataclass(frozen=True)
class Record:
    """A unit with its result as it was kept.

    Attributes
    ----------
    key, settings
        Of the unit.
    values : dict
        Of the result.
    seconds : float
        What the unit took.
    load : callable
        Reads the arrays of the result, name -> ndarray.
    """

    key: str
    settings: dict[str, Any]
    values: dict[str, Any]
    seconds: float
    load: Callable[[], dict[str, np.ndarray]]


@dataclass(frozen=True)
class Tools:
    """A unit may use these beside its settings: a device of PyTorch, and the bar that shows its progress."""

    device: str = "cpu"
    progress: Callable[[float], None] = lambda fraction: None


@dataclass(frozen=True)
class Picture:
    """A figure: name of its file without the ending, the figure, and a caption of whole sentences."""

    name: str
    figure: Figure
    caption: str


@dataclass(frozen=True)
class Check:
    """One comparison of a claim with what was measured: the figures in words, and whether they agree with it."""

    measured: str
    passed: bool


@dataclass(frozen=True)
class Finding:
    """A claim with its checks.

    Attributes
    ----------
    statement : str
        What is claimed, with the bounds by which it is judged.
    checks : sequence of Check
        None of them: not run.
    figure : str, optional
        Name of the picture that shows it.
    remark : str
        Why it comes out as it does, where that is known.
    source : str
        Who claims it: :data:`PAPER`, where the paper says or reports it, or :data:`OURS`, what was asked besides.
    """

    statement: str
    checks: Sequence[Check]
    figure: str | None = None
    remark: str = ""
    source: str = OURS

    @property
    def verdict(self) -> str:
        """Holds if all checks agree, in part if some do."""
        passed = [bool(check.passed) for check in self.checks]
        if not passed:
            return NOT_RUN
        return HOLDS if all(passed) else IN_PART if any(passed) else FAILS

    @property
    def reason(self) -> str:
        """How many checks agree, and those that do not."""
        if not self.checks:
            return "no result"
        failed = [check.measured for check in self.checks if not check.passed]
        total = len(self.checks)
        if not failed:
            return "all checks agree" if total > 1 else "the check agrees"
        return f"{len(failed)} of {total} checks {'does' if len(failed) == 1 else 'do'} not agree: {'; '.join(failed)}"


def no_remark(summary: Summary, checks: Sequence[Check]) -> str:
    """Where nothing needs to be said."""
    return ""


@dataclass(frozen=True)
class Claim:
    """An entry of an experiment's table of claims.

    Attributes
    ----------
    statement, source, figure
        Of the finding.
    checks : callable
        summary -> checks; none where the summary has not what it takes.
    remark : callable
        (summary, checks) -> remark.
    """

    statement: str
    source: str
    checks: Callable[[Summary], Sequence[Check]]
    figure: str | None = None
    remark: Callable[[Summary, Sequence[Check]], str] = no_remark

    def judge(self, summary: Summary) -> Finding:
        """The claim beside what was measured."""
        checks = self.checks(summary)
        return Finding(self.statement, checks, self.figure, self.remark(summary, checks), self.source)


@dataclass(frozen=True, kw_only=True)
class Work:
    """Something that runs units of work, whose results are kept.

    Attributes
    ----------
    name : str
        On the command line and in keys.
    version : int
        Raised by changes of the code that change results.
    run : callable
        (settings of a unit, tools) -> result.
    """

    name: str
    version: int
    run: Callable[[dict[str, Any], Tools], Result]

    def key(self, unit: Unit) -> str:
        """Return the unit's key among those of all work."""
        return f"{self.name}/{unit.key}"

    def fingerprint(self, unit: Unit) -> str:
        """Tell results of these settings and this version from all others."""
        content = json.dumps([self.version, unit.settings], sort_keys=True, allow_nan=False)
        return hashlib.sha256(content.encode()).hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class Experiment(Work):
    """An experiment; the package's docstring says what its parts do.

    Attributes
    ----------
    title : str
        Heading of its part of the report.
    """

    title: str
    units: Callable[[Scale], list[Unit]]
    summarize: Callable[[list[Record]], Summary]
    claims: Sequence[Claim]
    text: Callable[[Summary], str]
    figures: Callable[[list[Record]], list[Picture]]

    def summary(self, records: list[Record]) -> Summary:
        """Sum up the results, as that is kept: claims and text see no other figures than these."""
        found: Summary = kept(self.summarize(records)) if records else {}
        return found

    def findings(self, summary: Summary) -> list[Finding]:
        """All claims, in the order that numbers them."""
        return [claim.judge(summary) for claim in self.claims]
