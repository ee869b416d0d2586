"""The command at the tiny scale, from end to end."""

import dataclasses
import json

import pytest

from experiments import __main__ as command
from experiments import registry, report, summaries
from experiments.experiment import FAILS, HOLDS, IN_PART, NOT_RUN
from experiments.follow import measure as follow
from experiments.store import Store
from experiments.tests.toys import TINY

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The command at the tiny scale, all of it, with its folder; the documentation is in docs beside it."""
    folder = tmp_path_factory.mktemp("paper") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "DOCS", folder.parent / "docs")
        patch.setattr(command, "RESULTS", folder.parent / "results")
        assert command.main(["--scale", "tiny", "--out", str(folder), "--docs", "--jobs", "2"]) == 0
    return folder


def whole_report(store):
    summary = summaries.collect(registry.EXPERIMENTS, TINY, store)
    return report.of_summary(summary, registry.EXPERIMENTS, command.figures(registry.EXPERIMENTS, TINY, store))


def test_report_holds_every_claim_and_its_figures(tiny):
    text = " ".join((tiny / "report.md").read_text().split())  # prose is broken into lines
    parts = whole_report(Store(tiny)).parts
    assert [len(part.findings) for part in parts] == [4, 5, 4, 6, 5]
    for number, part in enumerate(parts, 1):
        for n, claim in enumerate(part.findings, 1):
            assert f"| {number}.{n} | {claim.statement} | {claim.source} | **{claim.verdict}** |" in text
            assert f"**Claim {number}.{n}** ({claim.source})." in text
            for check in claim.checks:
                assert check.measured in text
        for picture in part.pictures:
            assert f"]({picture.name}.png)" in text
            assert (tiny / f"{picture.name}.png").read_bytes().startswith(b"\x89PNG")
        assert all(claim.checks for claim in part.findings)
        assert {claim.figure for claim in part.findings} - {None} <= {picture.name for picture in part.pictures}
    assert "incomplete" not in text


def test_documentation_is_the_report_with_images_of_its_own(tiny):
    docs, own = tiny.parent / "docs", (tiny / "report.md").read_text()
    names = {path.name for path in tiny.glob("*.png")}
    assert len(names) > 10
    assert {path.name for path in (docs / "images" / "paper").iterdir()} == names
    assert (docs / "paper.md").read_text() == own.replace("](", "](images/paper/").replace(
        "](images/paper/https:", "](https:"
    )


@pytest.mark.parametrize("experiment", registry.EXPERIMENTS, ids=lambda e: e.name)
def test_summary_needs_no_arrays(tiny, experiment):
    def lost():
        raise AssertionError("arrays are not kept with results.json")

    whole = Store(tiny).records(experiment, experiment.units(TINY))
    bare = [dataclasses.replace(record, load=lost) for record in whole]
    assert experiment.summary(bare) == experiment.summary(whole)


@pytest.mark.parametrize("experiment", registry.EXPERIMENTS, ids=lambda e: e.name)
def test_any_part_of_the_records_will_do(tiny, experiment):
    kept = Store(tiny).records(experiment, experiment.units(TINY))
    assert "|---" in experiment.text(experiment.summary(kept))
    for part in (kept[:1], kept[1:], kept[::2]):
        summary = experiment.summary(part)
        assert len(experiment.findings(summary)) == len(experiment.claims)
        experiment.figures(part)
        experiment.text(summary)


@pytest.mark.parametrize("name", ["results.json", "summary.json"])
def test_claims_of_a_file_alone_are_those_of_the_report(tiny, tmp_path, capsys, monkeypatch, name):
    path = tmp_path / "kept.json"
    path.write_text((tiny / name).read_text())
    monkeypatch.setattr(follow, "PICTURE", "another")  # settings may depend on the machine, as those with CBM3D do
    assert command.main(["--scale", "tiny", "--claims", str(path)]) == 0
    shown = capsys.readouterr().out.splitlines()
    own = (tiny / "report.md").read_text().splitlines()
    assert [line for line in own if line.startswith(("|", "- "))] == [
        line for line in shown if line.startswith(("|", "- "))
    ]
    assert "**Claim 1.1**" in "\n".join(shown)
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(SystemExit):
        command.main(["--claims", str(tmp_path / "none.json")])


def test_summary_is_kept_with_the_documentation_and_made_again_from_the_results(tiny, tmp_path, capsys):
    kept = (tiny.parent / "results" / "tiny.json").read_text()
    assert kept == (tiny / "summary.json").read_text()
    argv = ["--scale", "tiny", "--claims", str(tiny / "results.json"), "--summary", str(tmp_path / "again.json")]
    assert command.main(argv) == 0
    assert (tmp_path / "again.json").read_text() == kept
    first = capsys.readouterr().out
    assert command.main(["--claims", str(tmp_path / "again.json")]) == 0  # which says its scale
    assert capsys.readouterr().out == first
    assert len(kept.splitlines()) < 600


def test_second_run_computes_nothing(tiny, capsys, monkeypatch):
    before = (tiny / "results.json").read_bytes()
    monkeypatch.setattr(report, "write", lambda *arguments: None)  # the same figures take as long again
    assert command.main(["--scale", "tiny", "--out", str(tiny)]) == 0
    assert "0 units computed, 0 failed" in capsys.readouterr().out
    assert (tiny / "results.json").read_bytes() == before


def test_results_say_where_they_are_from(tiny):
    kept = json.loads((tiny / "results.json").read_text())
    units = [(e, unit) for e in registry.EXPERIMENTS for unit in e.units(TINY)]
    assert {e.key(unit) for e, unit in units} == set(kept["results"])
    for entry in kept["results"].values():
        assert entry["seconds"] > 0
        assert entry["commit"]
        assert entry["date"]
        assert kept["machines"][entry["machine"]]["device"] == "cpu"
        assert kept["machines"][entry["machine"]]["versions"]["torch"].startswith(torch.__version__.split("+")[0])


def test_results_of_one_architecture_are_incomplete(tiny):
    """All of what is claimed may hold for the vanilla CNN alone; that is not the claim."""
    kept = Store(tiny)
    for experiment in registry.EXPERIMENTS:
        lost = [experiment.key(unit) for unit in experiment.units(TINY) if "vanilla" not in unit.key]
        for key in lost:
            del kept._kept["results"][key]
    summary = summaries.collect(registry.EXPERIMENTS, TINY, kept)
    for part in report.of_summary(summary, registry.EXPERIMENTS, {}).parts:
        assert part.incomplete
        assert {part.verdict(finding) for finding in part.findings} <= {
            NOT_RUN,
            *(f"{verdict} (incomplete)" for verdict in (HOLDS, IN_PART, FAILS)),
        }
