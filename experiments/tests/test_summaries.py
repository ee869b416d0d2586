"""The summary that is kept: its layout and digits, what is damaged, and the page that was made with it."""

import json
import re

import pytest

from experiments import __main__ as command
from experiments import registry, report, summaries
from experiments.layout import DIGITS, WIDTH, kept, laid_out
from experiments.picture import command as picture
from experiments.scales import SCALES
from experiments.store import FolderError, Store
from experiments.tests.toys import TINY, counting, toy


def test_numbers_are_kept_to_their_digits_and_missing_ones_are_none():
    assert kept({1: 0.123456789, "n": 3, "none": float("nan"), "pair": (1.5, True)}) == {
        "1": pytest.approx(0.123456789, rel=10.0**-DIGITS),
        "n": 3,
        "none": None,
        "pair": [1.5, True],
    }
    assert len(str(kept(1 / 3))) == DIGITS + 2
    assert isinstance(kept(2), int)


def test_what_is_kept_is_what_comes_back_from_the_file():
    value = kept({"wide": {str(n): n / 7 for n in range(40)}, "rows": [[1, 2], []], "empty": {}, "text": "± 1"})
    assert json.loads(laid_out(value)) == value == kept(value)


def test_what_fits_has_a_line_and_nothing_else_is_broken():
    value = {"short": {"a": 1, "b": [2, 3]}, "long": {"row": list(range(60)), "more": list(range(30))}}
    lines = laid_out(value).splitlines()
    assert lines[1] == ' "short": {"a": 1, "b": [2, 3]},'
    assert max(map(len, lines)) <= WIDTH
    assert f'  "more": {list(range(30))}' in lines


KEPT = [path for path in sorted(command.RESULTS.glob("*.json")) if path.name != picture.KEPT]


@pytest.mark.parametrize("summary", KEPT, ids=lambda path: path.stem)
def test_summaries_that_are_kept_are_short_and_of_the_present_versions(summary):
    content = summaries.read(summary)
    assert summary.stem == content["scale"]
    assert summary.read_text() == laid_out(content) + "\n"
    assert len(summary.read_text().splitlines()) < 700
    for experiment in registry.EXPERIMENTS:
        entry = summaries.of_experiment(content, experiment)
        assert entry["units"] == entry["expected"] == len(experiment.units(SCALES[content["scale"]]))


def test_page_of_the_documentation_is_the_report_of_the_summary_kept():
    page = (command.DOCS / command.PAGE).read_text()
    scale = report.scale_of(command.DOCS / command.PAGE)
    summary = summaries.read(command.RESULTS / f"{scale}.json")
    text = report.markdown(report.of_summary(summary, registry.EXPERIMENTS, {}), "")
    text = report.with_section(text, picture.appendix(command.RESULTS))
    without_pictures = re.sub(r"!\[.*?(?=\n## |\Z)", "", page, flags=re.DOTALL)
    words = " ".join(without_pictures.split())
    assert re.sub(r" \(figure `\w+`\)", "", words) == " ".join(text.split())


def test_experiments_of_another_version_count_as_not_run(tmp_path):
    experiment, store = toy(counting([])), Store(tmp_path)
    command.compute([experiment], TINY, store, "cpu")
    summary = summaries.collect([experiment], TINY, store)
    (part,) = report.of_summary(summary, [experiment], {}).parts
    assert (part.units, part.incomplete, part.findings[0].verdict) == (3, False, "holds")
    (part,) = report.of_summary(summary, [toy(counting([]), version=2)], {}).parts
    assert (part.units, part.incomplete, part.findings[0].verdict) == (0, True, "does not hold")


WHOLE = {"scale": "tiny", "machines": [], "commits": [], "days": [], "experiments": {}}
ENTRY = {"version": 1, "units": 1, "expected": 1, "seconds": 1.0, "summary": {}}


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (WHOLE | {"scale": 3}, "scale, machines"),
        (WHOLE | {"days": None}, "scale, machines"),
        (WHOLE | {"experiments": []}, "scale, machines"),
        (WHOLE | {"experiments": {"toy": {}}}, "version of toy"),
        (WHOLE | {"experiments": {"toy": ENTRY | {"summary": []}}}, "summary of toy"),
    ],
)
def test_damaged_summaries_are_named(tmp_path, capsys, content, named):
    path = tmp_path / "kept.json"
    path.write_text(json.dumps(WHOLE | {"experiments": {"toy": ENTRY}}))
    assert summaries.read(path)["experiments"]["toy"] == ENTRY
    path.write_text(json.dumps(content))
    with pytest.raises(FolderError, match=named):
        summaries.read(path)
    assert command.main(["--claims", str(path)]) == 2
    assert str(path) in capsys.readouterr().err
    path.write_text("{")
    assert command.main(["--claims", str(path)]) == 2
