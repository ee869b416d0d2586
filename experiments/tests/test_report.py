"""Verdicts, and the report."""

import pytest

from experiments import registry, report
from experiments.experiment import FAILS, HOLDS, IN_PART, NOT_RUN, Check, Finding, Picture
from experiments.scales import SCALES
from experiments.tests.toys import counting, toy


@pytest.mark.parametrize(
    ("passed", "verdict", "reason"),
    [
        ((), NOT_RUN, "no result"),
        ((True,), HOLDS, "the check agrees"),
        ((True, True), HOLDS, "all checks agree"),
        ((True, False), IN_PART, "1 of 2 checks does not agree: check 1"),
        ((False, False), FAILS, "2 of 2 checks do not agree: check 0; check 1"),
    ],
)
def test_verdict(passed, verdict, reason):
    claim = Finding("A claim.", [Check(f"check {n}", p) for n, p in enumerate(passed)])
    assert (claim.verdict, claim.reason) == (verdict, reason)


@pytest.mark.parametrize("experiment", registry.EXPERIMENTS, ids=lambda e: e.name)
def test_claims_without_results_are_not_run(experiment):
    found = experiment.findings(experiment.summary([]))
    assert found
    assert all(finding.verdict == NOT_RUN for finding in found)
    assert experiment.figures([]) == []
    assert experiment.text({})


def test_sources_of_the_claims():
    """The paper says that the filter is followed, the orders, the inputs, Adam, and the figures on House."""
    found = [[claim.source for claim in experiment.claims] for experiment in registry.EXPERIMENTS]
    assert found == [
        ["paper", "ours", "ours", "ours"],
        ["paper"] * 5,
        ["paper", "paper", "ours", "ours"],
        ["ours", "paper", "paper", "ours", "ours", "ours"],
        ["paper", "paper", "ours", "ours", "paper"],
    ]


@pytest.mark.parametrize("experiment", registry.EXPERIMENTS, ids=lambda e: e.name)
@pytest.mark.parametrize("scale", SCALES.values(), ids=lambda s: s.name)
def test_units_have_keys_and_settings_of_their_own(experiment, scale):
    units = experiment.units(scale)
    assert units
    assert len({unit.key for unit in units}) == len(units)
    assert len({experiment.fingerprint(unit) for unit in units}) == len(units)


def test_report_for_the_documentation_links_its_images(tmp_path):
    from matplotlib.figure import Figure

    figure = Figure()
    figure.subplots().plot([0, 1])
    experiment = toy(counting([]))
    found = [Finding("First | claim.", [Check("1", True)], "line", "A remark.")]
    part = report.Part(experiment, found, [Picture("line", figure, "A line.")], "Words.", 0, 0)
    report.write(tmp_path / "paper.md", report.Report([part], "tiny"), tmp_path / "images" / "paper")
    text = (tmp_path / "paper.md").read_text()
    assert (tmp_path / "images" / "paper" / "line.png").exists()
    for line in (
        "![line](images/paper/line.png)",
        r"| 1.1 | First \| claim. | ours | **holds** |",
        "## 1. A toy",
        "Words.",
        "A remark.",
        "Nothing has run yet.",
    ):
        assert line in text


@pytest.mark.parametrize(("units", "mark"), [(2, " (incomplete)"), (3, "")])
def test_verdicts_of_a_part_of_the_results_say_so(units, mark):
    found = [Finding("One.", [Check("1", True)]), Finding("Two.", [])]
    part = report.Part(toy(counting([])), found, [], "", units, 3)
    whole = report.Report([part], "tiny", days=["today"])
    text = report.markdown(whole, "")
    assert f"| 1.1 | One. | ours | **holds{mark}** |" in text
    assert f"- verdict: **holds{mark}**, the check agrees" in text
    assert f"| 1.2 | Two. | ours | **{NOT_RUN}** |" in text
    first, second = report.overview(whole).splitlines()
    assert first.split("  ")[1] == f"holds{mark}"
    assert first.index("One.") == second.index("Two.")


def test_best_steps_at_the_last_one_allowed_are_counted():
    assert report.last_allowed({"a": (2, 3), "b": (0, 1), "c": (0, 0)}).endswith("in a (2 of 3).")
    assert report.last_allowed({"a": (0, 1)}) == "no best step is the last allowed."


def test_prose_is_broken_and_tables_are_not():
    words, cells = " ".join(["word"] * 40), "| " + " ".join(["cell"] * 40) + " |"
    part = report.Part(toy(counting([])), [Finding(words, [])], [], f"{words}\n\n- {words}\n{cells}", 0, 0)
    lines = report.markdown(report.Report([part], "tiny"), "").splitlines()
    assert cells in lines
    assert max(len(line) for line in lines if not line.startswith("|")) <= 120
    assert sum(line.startswith("  word") for line in lines) == 1


def test_table():
    assert report.table(["a", "b"], [["x", "1"]]) == "| a | b |\n|---|---:|\n| x | 1 |"
