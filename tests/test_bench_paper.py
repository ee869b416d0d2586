"""The paper's experiments: the tiny scale from end to end, resumption, fits, verdicts and the report."""

import dataclasses
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from bench import machine
from bench.paper import __main__ as command
from bench.paper import data, follow, registry, report, weights, workers
from bench.paper.architectures import ARCHITECTURES, finite_network
from bench.paper.experiment import (
    FAILS,
    HOLDS,
    IN_PART,
    NOT_RUN,
    Check,
    Claim,
    Experiment,
    Picture,
    Record,
    Result,
    Tools,
    Unit,
)
from bench.paper.fits import power_law
from bench.paper.scales import SCALES, WeightsSizes
from bench.paper.store import FolderError, Store

from ntkfast.reference import kernel_matrix

torch = pytest.importorskip("torch")

TINY = SCALES["tiny"]
NOWHERE = {"machines": [], "commits": [], "days": [], "seconds": 0.0, "units": 0}


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch):
    """Toys are known in this process alone; the tiny scale, whose fixture lasts longer, runs in several."""
    monkeypatch.setattr(workers, "default_jobs", lambda device: 1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The command at the tiny scale, all of it, with its folder; the documentation is in docs beside it."""
    folder = tmp_path_factory.mktemp("paper") / "tiny"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "DOCS", folder.parent / "docs")
        assert command.main(["--scale", "tiny", "--out", str(folder), "--docs", "--jobs", "2"]) == 0
    return folder


def toy(run, *, keys=("a", "b", "c"), version=1, settings=None):
    """An experiment without networks: unit n has the setting n."""
    return Experiment(
        name="toy",
        title="A toy",
        version=version,
        units=lambda scale: [Unit(key, settings or {"n": n}) for n, key in enumerate(keys)],
        run=run,
        figures=lambda records: [],
        claims=lambda records: [Claim("All are there.", [Check(f"{len(records)} of 3", len(records) == 3)])],
        text=lambda records: f"{len(records)} records.",
    )


def counting(calls, *, fails_at=None):
    def run(settings, tools):
        calls.append(settings["n"])
        if settings["n"] == fails_at:
            raise RuntimeError("no luck")
        return Result({"square": settings["n"] ** 2}, {"ramp": np.arange(settings["n"] + 1)})

    return run


# --- The tiny scale -----------------------------------------------------------------------------------------------


def test_report_holds_every_claim_and_its_figures(tiny):
    text = " ".join((tiny / "report.md").read_text().split())  # prose is broken into lines
    parts = command.collect(registry.EXPERIMENTS, TINY, Store(tiny))
    assert [len(part.claims) for part in parts] == [4, 5, 4, 6, 5]
    for number, part in enumerate(parts, 1):
        for n, claim in enumerate(part.claims, 1):
            assert f"| {number}.{n} | {claim.statement} | {claim.source} | **{claim.verdict}** |" in text
            assert f"**Claim {number}.{n}** ({claim.source})." in text
            for check in claim.checks:
                assert check.measured in text
        for picture in part.pictures:
            assert f"]({picture.name}.png)" in text
            assert (tiny / f"{picture.name}.png").read_bytes().startswith(b"\x89PNG")
        assert all(claim.checks for claim in part.claims)
        assert {claim.figure for claim in part.claims} - {None} <= {picture.name for picture in part.pictures}
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
def test_claims_and_text_need_no_arrays(tiny, experiment):
    def lost():
        raise AssertionError("arrays are not kept with results.json")

    whole = Store(tiny).records(experiment, experiment.units(TINY))
    bare = [dataclasses.replace(record, load=lost) for record in whole]
    assert experiment.claims(bare) == experiment.claims(whole)
    assert experiment.text(bare) == experiment.text(whole)


@pytest.mark.parametrize("experiment", registry.EXPERIMENTS, ids=lambda e: e.name)
def test_any_part_of_the_records_will_do(tiny, experiment):
    kept = Store(tiny).records(experiment, experiment.units(TINY))
    assert "|---" in experiment.text(kept)
    for part in (kept[:1], kept[1:], kept[::2]):
        assert len(experiment.claims(part)) == len(experiment.claims([]))
        experiment.figures(part)
        experiment.text(part)


def test_claims_of_a_file_alone_are_those_of_the_report(tiny, tmp_path, capsys, monkeypatch):
    path = tmp_path / "kept.json"
    path.write_text((tiny / "results.json").read_text())
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


# --- Resumption ---------------------------------------------------------------------------------------------------


def test_interrupted_run_continues(tmp_path, monkeypatch, capsys):
    calls = []

    def stopped(settings, tools):
        if settings["n"] == 1 and calls == [0]:
            raise KeyboardInterrupt
        return counting(calls)(settings, tools)

    monkeypatch.setattr(registry, "EXPERIMENTS", (toy(stopped),))
    argv = ["--scale", "tiny", "--out", str(tmp_path)]
    assert command.main(argv) == 130
    assert calls == [0]
    calls.append("again")
    assert command.main(argv) == 0
    assert calls == [0, "again", 1, 2]
    assert "2 units computed, 0 failed" in capsys.readouterr().out
    assert not list(tmp_path.rglob("*.part"))


def test_processes_end_with_the_iterator_and_give_the_threads_back(monkeypatch):
    monkeypatch.setenv(workers.THREADS, "7")
    tasks = [(weights.EXPERIMENT, unit) for unit in weights.units(TINY)[:6]]
    outcomes = workers.in_processes(tasks, "cpu", 2)
    (_, unit), outcome = next(outcomes)
    assert unit in [task[1] for task in tasks]
    assert outcome.result is not None
    assert outcome.error == ""
    outcomes.close()
    assert not multiprocessing.active_children()
    assert os.environ[workers.THREADS] == "7"


def test_errors_in_processes_are_told():
    ((_, outcome),) = workers.in_processes([(weights.EXPERIMENT, Unit("none", {}))], "cpu", 1)
    assert outcome.result is None
    assert "KeyError" in outcome.error


def children(pid):
    """Processes that a process has started, but for those that only clean up after it."""
    try:
        found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return [n for n in found if "spawn_main" in Path(f"/proc/{n}/cmdline").read_text()]
    except OSError:
        return []


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def until(condition, seconds):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.05)
    return condition()


@pytest.mark.skipif(not Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_a_run_that_is_ended_leaves_no_processes_and_what_is_done(tmp_path, number):
    argv = [sys.executable, "-m", "bench.paper", "--scale", "tiny", "--jobs", "2", "--out", str(tmp_path)]
    command_line = subprocess.Popen(argv, cwd=machine.ROOT, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert until((tmp_path / "results.json").exists, 120)
        workers_of = children(command_line.pid)
        assert len(workers_of) == 2
        command_line.send_signal(number)
        errors = command_line.communicate(timeout=60)[1]
        assert until(lambda: not any(alive(n) for n in workers_of), 30)
    finally:
        command_line.kill()
    if number == signal.SIGTERM:
        assert command_line.returncode == 130
        assert f"the same command goes on from {tmp_path}" in errors
    assert Store(tmp_path).records(registry.EXPERIMENTS[0], registry.EXPERIMENTS[0].units(TINY))


def test_failed_unit_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(registry, "EXPERIMENTS", (toy(counting(calls, fails_at=1)),))
    assert command.main(["--scale", "tiny", "--out", str(tmp_path)]) == 1
    assert calls == [0, 1, 2]
    assert "RuntimeError: no luck" in capsys.readouterr().err
    text = (tmp_path / "report.md").read_text()
    assert "Of 3 units of work 2 have a result." in text
    assert "**does not hold (incomplete)**" in text


def test_results_of_other_settings_or_versions_do_not_count(tmp_path):
    store = Store(tmp_path)
    first = toy(counting([]))
    assert command.compute([first], TINY, store, "cpu") == (3, 0)
    unit = first.units(TINY)[2]
    record = Store(tmp_path).get(first, unit)
    assert record.values == {"square": 4}
    np.testing.assert_array_equal(record.load()["ramp"], [0, 1, 2])
    assert store.get(toy(counting([]), version=2), unit) is None
    assert store.get(first, Unit(unit.key, {"n": 3})) is None
    (tmp_path / "arrays").rename(tmp_path / "lost")
    assert store.get(first, unit) is None


def test_results_must_be_finite(tmp_path):
    experiment = toy(lambda settings, tools: Result({"x": float("nan")}))
    with pytest.raises(ValueError, match="JSON"):
        Store(tmp_path).put(experiment, experiment.units(TINY)[0], Result({"x": float("nan")}), 1.0, "cpu")
    assert not (tmp_path / "results.json").exists()


WHOLE = {
    "fingerprint": "0",
    "settings": {},
    "values": {},
    "arrays": None,
    "seconds": 1.0,
    "machine": "m",
    "commit": "c",
    "date": "2026-01-01",
}


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        ({"values": []}, "values of a/b"),
        ({"settings": None}, "settings of a/b"),
        ({"seconds": "1"}, "seconds of a/b"),
        ({"seconds": True}, "seconds of a/b"),
        ({"arrays": 3}, "arrays of a/b"),
        ({"machine": "other"}, "machine of a/b is not among"),
        ({"date": 2026}, "date of a/b"),
    ],
)
def test_entries_of_another_kind_are_named(tmp_path, changed, named):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"machines": {"m": {}}, "results": {"a/b": WHOLE}}))
    Store(tmp_path)
    path.write_text(json.dumps({"machines": {"m": {}}, "results": {"a/b": WHOLE | changed}}))
    with pytest.raises(FolderError, match=named):
        Store(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        '{"results": {}}',
        '{"machines": [], "results": {}}',
        "null",
        "",
        "{",
        "[]",
        "{}",
        '{"machines": {}, "results": {"a": {}}}',
        '{"machines": {}, "results": []}',
        "\0",
    ],
)
def test_damaged_results_are_named_and_kept(tmp_path, monkeypatch, capsys, content):
    path = tmp_path / "results.json"
    path.write_text(content)
    monkeypatch.setattr(registry, "EXPERIMENTS", (toy(counting([])),))
    assert command.main(["--scale", "tiny", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert str(path) in error
    assert "move it away" in error
    assert path.read_text() == content


def test_unit_with_damaged_arrays_is_computed_again(tmp_path):
    calls = []
    experiment, store = toy(counting(calls)), Store(tmp_path)
    command.compute([experiment], TINY, store, "cpu")
    files = sorted((tmp_path / "arrays").iterdir())
    whole = files[0].read_bytes()
    files[0].write_bytes(whole[: len(whole) // 2])
    files[1].write_bytes(b"")
    command.compute([experiment], TINY, store, "cpu")
    assert calls == [0, 1, 2, 0, 1]
    assert [len(record.load()["ramp"]) for record in store.records(experiment, experiment.units(TINY))] == [1, 2, 3]


def test_two_runs_do_not_write_to_one_folder(tmp_path, monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(registry, "EXPERIMENTS", (toy(counting(calls)),))
    argv = ["--scale", "tiny", "--out", str(tmp_path)]
    with Store(tmp_path).locked():
        assert command.main(argv) == 2
    assert not calls
    assert f"another run is writing to {tmp_path}" in capsys.readouterr().err
    assert command.main(argv) == 0


def test_results_of_a_run_that_has_just_ended_are_seen(tmp_path):
    experiment, late = toy(counting([])), Store(tmp_path)
    command.compute([experiment], TINY, Store(tmp_path), "cpu")
    with late.locked():
        assert len(late.records(experiment, experiment.units(TINY))) == 3


# --- The device ---------------------------------------------------------------------------------------------------


def test_device_without_a_card_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit) as error:
        command.main(["--scale", "tiny", "--out", str(tmp_path), "--device", "cuda"])
    assert error.value.code == 2
    assert "PyTorch sees no card" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_device_reaches_the_units_and_their_results(tmp_path, monkeypatch):
    def run(settings, tools):
        return Result({"device": tools.device}, device="cpu" if settings["n"] == 1 else None)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: f"a card ({device})")
    monkeypatch.setattr(registry, "EXPERIMENTS", (toy(run),))
    assert command.main(["--scale", "tiny", "--out", str(tmp_path), "--device", "cuda"]) == 0
    kept = json.loads((tmp_path / "results.json").read_text())
    assert {entry["values"]["device"] for entry in kept["results"].values()} == {"cuda"}
    devices = [kept["machines"][entry["machine"]]["device"] for entry in kept["results"].values()]
    assert devices == ["a card (cuda)", "cpu", "a card (cuda)"]


@pytest.mark.parametrize("key", ["inputs/vanilla/noise", "table/chelsea/peers"])
def test_what_runs_on_the_processor_says_so(key):
    name, _, rest = key.partition("/")
    experiment = next(e for e in registry.EXPERIMENTS if e.name == name)
    small = dataclasses.replace(TINY, table=dataclasses.replace(TINY.table, side=8, pictures=9))
    unit = next(unit for unit in experiment.units(small) if unit.key == rest)
    assert experiment.run(unit.settings, Tools("cuda")).device == "cpu"


# --- The documentation --------------------------------------------------------------------------------------------


@pytest.fixture
def docs(tmp_path, monkeypatch):
    """The documentation's folder, with an experiment whose results are quickly there."""
    monkeypatch.setattr(command, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(registry, "EXPERIMENTS", (toy(counting([])),))
    return tmp_path / "docs"


def argv_of(scale, tmp_path):
    return ["--scale", scale, "--out", str(tmp_path / scale), "--docs"]


@pytest.mark.parametrize(("scale", "kept"), [("tiny", False), ("small", False), ("medium", True), ("full", True)])
def test_report_of_a_larger_scale_is_not_replaced(docs, tmp_path, capsys, scale, kept):
    assert command.main(argv_of(scale, tmp_path)) == 0
    before = (docs / "paper.md").read_text()
    assert f"--scale {scale}" in before
    if kept:
        with pytest.raises(SystemExit):
            command.main(argv_of("small", tmp_path))
        assert f"larger scale {scale}" in capsys.readouterr().err
        assert (docs / "paper.md").read_text() == before
        assert not (tmp_path / "small").exists()
    else:
        assert command.main(argv_of("small", tmp_path)) == 0
        assert "--scale small" in (docs / "paper.md").read_text()


def test_figures_that_the_new_report_has_not_are_deleted(docs, tmp_path):
    images = docs / "images" / "paper"
    images.mkdir(parents=True)
    (images / "old.png").write_bytes(b"")
    (images / "notes.txt").write_text("")
    assert command.main(argv_of("tiny", tmp_path)) == 0
    assert [path.name for path in images.iterdir()] == ["notes.txt"]


def test_incomplete_report_is_not_published(docs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(registry, "EXPERIMENTS", (toy(counting([], fails_at=1)),))
    assert command.main(argv_of("tiny", tmp_path)) == 1
    assert "paper.md was not written: units without a result in toy" in capsys.readouterr().err
    assert not docs.exists()


def test_part_of_the_experiments_is_not_published(docs, tmp_path, monkeypatch):
    other = dataclasses.replace(toy(counting([])), name="other")
    monkeypatch.setattr(registry, "EXPERIMENTS", (toy(counting([])), other))
    assert command.main([*argv_of("tiny", tmp_path), "--only", "toy"]) == 1
    assert not docs.exists()
    assert command.main([*argv_of("tiny", tmp_path), "--only", "other"]) == 0
    assert "--scale tiny" in (docs / "paper.md").read_text()


# --- Verdicts and the report --------------------------------------------------------------------------------------


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
    claim = Claim("A claim.", [Check(f"check {n}", p) for n, p in enumerate(passed)])
    assert (claim.verdict, claim.reason) == (verdict, reason)


@pytest.mark.parametrize("experiment", registry.EXPERIMENTS, ids=lambda e: e.name)
def test_claims_without_results_are_not_run(experiment):
    assert experiment.claims([])
    assert all(claim.verdict == NOT_RUN for claim in experiment.claims([]))
    assert experiment.figures([]) == []
    assert isinstance(experiment.text([]), str)


def test_sources_of_the_claims():
    """What the paper says: that the filter is followed, the orders, the inputs, Adam, and the figures on House."""
    found = [[claim.source for claim in experiment.claims([])] for experiment in registry.EXPERIMENTS]
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
    claims = [Claim("First | claim.", [Check("1", True)], "line", "A remark.")]
    part = report.Part(experiment, claims, [Picture("line", figure, "A line.")], "Words.", NOWHERE, 0)
    report.write(tmp_path / "paper.md", [part], "tiny", tmp_path / "images" / "paper")
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
    claims = [Claim("One.", [Check("1", True)]), Claim("Two.", [])]
    part = report.Part(toy(counting([])), claims, [], "", {**NOWHERE, "units": units, "days": ["today"]}, 3)
    text = report.markdown([part], "tiny", "")
    assert f"| 1.1 | One. | ours | **holds{mark}** |" in text
    assert f"- verdict: **holds{mark}**, the check agrees" in text
    assert f"| 1.2 | Two. | ours | **{NOT_RUN}** |" in text
    first, second = report.summary([part]).splitlines()
    assert first.split("  ")[1] == f"holds{mark}"
    assert first.index("One.") == second.index("Two.")


def test_results_of_one_architecture_are_incomplete(tiny):
    """All of what is claimed may hold for the vanilla CNN alone; that is not the claim."""
    kept = Store(tiny)
    for experiment in registry.EXPERIMENTS:
        lost = [experiment.key(unit) for unit in experiment.units(TINY) if "vanilla" not in unit.key]
        for key in lost:
            del kept._kept["results"][key]
    for part in command.collect(registry.EXPERIMENTS, TINY, kept):
        assert part.incomplete
        assert {part.verdict(claim) for claim in part.claims} <= {
            NOT_RUN,
            *(f"{verdict} (incomplete)" for verdict in (HOLDS, IN_PART, FAILS)),
        }


def test_best_steps_at_the_last_one_allowed_are_counted():
    assert report.last_allowed({"a": [True, False, True], "b": [False], "c": []}).endswith("in a (2 of 3).")
    assert report.last_allowed({"a": [False]}) == "no best step is the last allowed."


def test_prose_is_broken_and_tables_are_not():
    words, cells = " ".join(["word"] * 40), "| " + " ".join(["cell"] * 40) + " |"
    part = report.Part(toy(counting([])), [Claim(words, [])], [], f"{words}\n\n- {words}\n{cells}", NOWHERE, 0)
    lines = report.markdown([part], "tiny", "").splitlines()
    assert cells in lines
    assert max(len(line) for line in lines if not line.startswith("|")) <= 120
    assert sum(line.startswith("  word") for line in lines) == 1


def test_table():
    assert report.table(["a", "b"], [["x", "1"]]) == "| a | b |\n|---|---:|\n| x | 1 |"


# --- Fits ---------------------------------------------------------------------------------------------------------


def test_power_law_is_found_exactly():
    widths = [16, 32, 64, 128]
    law = power_law(widths, [3.0 * w**-0.5 for w in widths])
    assert law.slope == pytest.approx(-0.5, abs=1e-12)
    assert law.level == pytest.approx(3.0, rel=1e-12)
    assert law.error == pytest.approx(0.0, abs=1e-12)
    assert law.at(1024) == pytest.approx(3 / 32, rel=1e-12)


def test_power_law_error_is_that_of_linear_regression():
    from scipy.stats import linregress

    rng = np.random.default_rng(0)
    widths = np.repeat([16, 32, 64, 128, 256], 4)
    values = 2.0 * widths**-1.5 * np.exp(0.1 * rng.standard_normal(20))
    want = linregress(np.log(widths), np.log(values))
    law = power_law(widths.tolist(), values.tolist())
    assert (law.slope, law.error) == pytest.approx((want.slope, want.stderr), rel=1e-10)
    assert abs(law.slope + 1.5) < 3 * law.error
    half = 2.1009 * law.error  # Student's quantile of 0.975 with 18 degrees of freedom
    assert law.interval() == pytest.approx((law.slope - half, law.slope + half), rel=1e-4)


def test_power_law_of_few_points():
    assert power_law([], []) is None
    assert power_law([16, 16], [1.0, 2.0]) is None
    law = power_law([16, 64], [1.0, 0.5])
    assert law.slope == pytest.approx(-0.5)
    assert str(law) == "-0.50"
    assert law.interval() is None


# --- Gradient descent follows the filter --------------------------------------------------------------------------


def follow_records(slope, level=1.0, widths=(16, 64, 256, 1024), gap=0.0, bias=0.0):
    """Two networks of each width at the distance level * width^slope, in opposite directions but for a bias."""
    records = []
    for name in ARCHITECTURES:
        for width in widths:
            for sign in (1, -1):
                exact = np.zeros((4, 4))
                exact[0, 0] = 1.0
                output = exact.copy()
                output[1, 1] = sign * level * width**slope
                output[2, 2] = bias * level * width**slope
                values = {
                    "distance": follow.distance(output, exact),
                    "direction": follow.written(output - exact),
                    "noisy_psnr": 20.0,
                    "best_step": 2,
                    "cut": False,
                    "halvings": 0,
                    "times": [0, 1, 2],
                    "psnr": [10.0, 20.0, 25.0 + gap],
                    "exact_psnr": [10.0, 20.0, 25.0],
                }
                settings = {"architecture": name, "width": width, "seed": sign, "side": 4, "curve": True}
                records.append(Record("", settings, values, 1.0, dict))
    return records


@pytest.mark.parametrize(
    ("records", "verdicts"),
    [
        (follow_records(-0.5), [HOLDS, HOLDS, HOLDS, HOLDS]),
        (follow_records(-0.2), [FAILS, FAILS, HOLDS, HOLDS]),
        (follow_records(-0.5, level=3.0, gap=-1.0), [HOLDS, FAILS, HOLDS, FAILS]),
        (follow_records(-0.5, widths=(16, 64)), [HOLDS, FAILS, HOLDS, HOLDS]),
        (follow_records(-0.5)[:8] + follow_records(-0.1)[8:], [IN_PART, IN_PART, HOLDS, HOLDS]),
    ],
)
def test_follow_verdicts(records, verdicts):
    assert [claim.verdict for claim in follow.claims(records)] == verdicts


@pytest.mark.parametrize(("bias", "verdict"), [(0.0, HOLDS), (1.0, HOLDS), (1.8, FAILS), (100.0, FAILS)])
def test_mean_over_networks_that_err_alike_is_no_nearer(bias, verdict):
    """Of opposite errors 1 and a common one b the ratio is b/sqrt(1 + b^2), where 0.71 is expected and 0.86 allowed."""
    claim = follow.claims(follow_records(-0.5, bias=bias))[2]
    assert claim.verdict == verdict
    assert f"{bias / np.hypot(1, bias):.2f} at width 64 (2 networks, expected 0.71)" in claim.checks[0].measured


def test_widths_of_one_network_have_no_mean():
    records = [r for r in follow_records(-0.5) if r.settings["width"] != 1024 or r.settings["seed"] == 1]
    check = follow.claims(records)[2].checks[0]
    assert "one network only at width 1024" in check.measured
    assert "at width 1024 (" not in check.measured


def test_share_in_common_has_no_bias():
    """Of independent errors about a common one: the mean over many draws of the estimate is the share put in."""
    rng, shares = np.random.default_rng(0), []
    for _ in range(300):
        errors = rng.standard_normal((3, 64)) + np.full(64, 0.5)
        values = [{"distance": float(np.linalg.norm(e)), "direction": follow.written(e)} for e in errors]
        records = [Record("", {}, v, 1.0, dict) for v in values]
        np.testing.assert_allclose(follow.errors(records), errors, atol=0.01)
        assert follow.mean_distance(records) == pytest.approx(np.linalg.norm(errors.mean(axis=0)), rel=1e-3)
        shares.append(follow.common_share(records))
    assert np.mean(shares) == pytest.approx(0.25 / 1.25, abs=0.01)


def test_width_1024_is_judged_where_it_was_run():
    wider = follow_records(-0.5, level=1.0, widths=(16, 1024, 4096))
    assert "width 1024" in follow.claims(wider)[1].checks[0].measured
    narrower = follow_records(-0.5, level=1.0, widths=(16, 64))
    claim = follow.claims(narrower)[1]
    assert "width 64" in claim.checks[0].measured
    assert "width 1024 would be: vanilla CNN 3.1 %" in claim.remark


def test_follow_unit_is_the_training_beside_its_closed_form():
    """Distance and PSNRs against a gradient descent written here, on the finite network's own parameters."""
    unit = next(u for u in follow.units(TINY) if u.settings["architecture"] == "vanilla" and u.settings["width"] == 16)
    result = follow.run(unit.settings, Tools())
    image = follow.crop(TINY.follow.side)
    network = ARCHITECTURES["vanilla"]
    K = kernel_matrix(network, image.noisy)
    best, rate = result.values["best_step"], 1 / result.values["lambda_max"] / 2 ** result.values["halvings"]
    steps = best * 2 ** result.values["halvings"]
    assert rate * np.linalg.eigvalsh(K)[-1] == pytest.approx(0.5 ** result.values["halvings"], rel=1e-4)

    y, z = image.noisy.ravel(), np.zeros(image.noisy.size)
    for _ in range(steps):
        z += rate * K @ (y - z)
    at = result.values["times"].index(best)
    assert result.values["exact_psnr"][at] == pytest.approx(image.psnr(z.reshape(image.noisy.shape)), abs=1e-3)

    module = finite_network(network, 16, unit.settings["seed"], "cpu").double()
    x = torch.from_numpy(image.noisy)[None, None]
    start = module(x).detach()
    for _ in range(steps):
        loss = 0.5 * (module(x) - start - x).square().sum()
        gradients = torch.autograd.grad(loss, list(module.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(module.parameters(), gradients, strict=True):
                parameter -= rate * gradient
    output = (module(x) - start).detach()[0, 0].numpy()
    error = (output.ravel() - z) / np.linalg.norm(z)
    assert result.values["distance"] == pytest.approx(np.linalg.norm(error), rel=1e-3)
    kept = follow.errors([Record("", unit.settings, result.values, 1.0, dict)])[0]
    np.testing.assert_allclose(kept, error, atol=0.01 * np.abs(error).max())


def test_unstable_step_size_is_halved(monkeypatch):
    unit = next(u for u in follow.units(TINY) if u.settings["architecture"] == "vanilla" and u.settings["width"] == 16)
    plain = follow.run(unit.settings, Tools()).values
    monkeypatch.setattr(follow, "largest_eigenvalue", lambda module, x, start: 5.9 * plain["lambda_max"])
    halved = follow.run(unit.settings, Tools()).values
    assert halved["halvings"] == 2
    assert halved["times"] == plain["times"]
    # Four times as many steps of a quarter of the size: much the same filter.
    assert halved["exact_psnr"][-1] == pytest.approx(plain["exact_psnr"][-1], abs=1.0)
    assert halved["distance"] < 1


def test_ticks_are_plain_decimals():
    numbers = (5e-5, 0.02, 1.0, 200.0, 1e-9)
    assert [follow.decimal(n) for n in numbers] == ["0.00005", "0.02", "1", "200", "1e-09"]


def test_largest_eigenvalue_of_a_finite_network():
    from ntkfast.finite import empirical_ntk

    image = follow.crop(8)
    module = finite_network(ARCHITECTURES["unet"], 8, 0, "cpu")
    want = np.linalg.eigvalsh(empirical_ntk(module, image.noisy).dense().astype(np.float64))[-1]
    _, spectrum, _ = follow.closed_form("unet", 8, 30)
    for start in (spectrum.vectors[:, -1], np.random.default_rng(0).standard_normal(64)):
        assert follow.largest_eigenvalue(module, image.noisy, start) == pytest.approx(want, rel=0.01)


# --- Weight changes -----------------------------------------------------------------------------------------------


def weights_records(slopes, *, reached=True):
    """Changes that are exact powers of the width: slopes by (optimizer, norm), for both conventions."""
    records = []
    for name in ARCHITECTURES:
        for optimizer in weights.OPTIMIZERS:
            for width in (16, 64, 256):
                change = {
                    norm: {kind: width ** slopes[optimizer, norm] for kind in weights.KINDS} for norm in weights.NORMS
                }
                values = {
                    "reached": 10.0 if reached else None,
                    "common_steps": 8,
                    "change": {"steps": change, "loss": change if reached else None, "4": change, "16": change},
                }
                settings = {"architecture": name, "optimizer": optimizer, "width": width}
                records.append(Record("", settings, values, 1.0, dict))
    return records


def test_weights_verdicts():
    assert [c.verdict for c in weights.claims(weights_records(weights.PAPER))] == [HOLDS] * 5
    others = {("gd", "l2"): 0.0, ("gd", "linf"): -1.2, ("adam", "l2"): -0.5, ("adam", "linf"): -1.1}
    verdicts = [c.verdict for c in weights.claims(weights_records(others))]
    assert verdicts == [FAILS, FAILS, FAILS, HOLDS, FAILS]
    remarks = [c.remark for c in weights.claims(weights_records(weights.PAPER))]
    assert "vanilla CNN -1.50" in remarks[1]
    assert "after 4 steps: vanilla CNN 0.00 ± 0.00" in remarks[2]
    missed = weights.claims(weights_records(weights.PAPER, reached=False))
    assert [c.verdict for c in missed] == [HOLDS] * 4 + [NOT_RUN]
    assert [len(c.checks) for c in missed] == [3, 3, 6, 6, 0]


@pytest.mark.parametrize(
    ("loss", "want"),
    [([4.0, 2.0, 1.0], 1.5), ([1.0, 0.5], 0.0), ([4.0, 1.5], 1.0), ([4.0, 2.0], None), ([2.0, 1.0, 3.0, 1.0], 0.5)],
)
def test_crossing(loss, want):
    assert weights.crossing(loss, 1.5) == want


def test_norms_of_several_layers():
    assert weights.combined([3.0, 4.0], "l2") == 5.0
    assert weights.combined([3.0, 4.0], "linf") == 4.0
    assert weights.between(np.array([0.0, 2.0, 6.0]), 1.25) == 3.0
    assert weights.kinds(["0", "2", "4", "6"]) == {"first": ["0"], "hidden": ["2", "4"], "last": ["6"]}


def test_weight_changes_are_those_of_the_weights():
    """At the same number of steps, against the weights before and after."""
    sizes = WeightsSizes(side=8, networks=((8, 1),), most_steps=64)
    units = weights.units(dataclasses.replace(TINY, weights=sizes))
    unit = next(u for u in units if u.key == "autoencoder/adam/width=8/seed=0")
    values = weights.run(unit.settings, Tools()).values
    assert values["common_steps"] == weights.STEPS_ADAM

    from ntkfast.finite import train

    image = follow.crop(8)
    before, after = (finite_network(ARCHITECTURES["autoencoder"], 8, 0, "cpu") for _ in range(2))
    settings = {"optimizer": "adam", "steps": weights.STEPS_ADAM, "learning_rate": weights.RATE_ADAM}
    train(after, image.noisy, image.noisy, **settings)
    scale = np.sqrt(2 / (8 * 9))
    hidden = [
        scale * (b.weight - a.weight).detach().numpy().ravel()
        for a, b in zip(before, after, strict=True)
        if getattr(a, "in_channels", None) == 8 and a.weight.shape[-1] == 3
    ]
    assert len(hidden) == 2
    changes = np.concatenate(hidden)
    kept = [Record("", unit.settings, values, 1.0, dict)]
    for norm, want in (("l2", np.linalg.norm(changes)), ("linf", np.abs(changes).max())):
        assert weights.changes_of(kept, "steps", norm, "hidden") == ([8], [pytest.approx(want, rel=1e-4)])


def norms_of(module, start):
    """l2 and l_inf norm of the change of every convolution's effective weights."""
    changes = {
        name: part.weight_scale * (part.weight - start[name]).detach().numpy().ravel()
        for name, part in module.named_modules()
        if hasattr(part, "weight_scale")
    }
    return {
        "l2": {n: np.linalg.norm(c) for n, c in changes.items()},
        "linf": {n: abs(c).max() for n, c in changes.items()},
    }


def test_weights_unit_is_the_training_until_the_loss():
    """Steps, losses and changes against a gradient descent written here."""
    unit = next(u for u in weights.units(TINY) if u.key == "vanilla/gd/width=16/seed=0")
    found = weights.run(unit.settings, Tools()).values
    image, network = follow.crop(TINY.weights.side), ARCHITECTURES["vanilla"]
    y, K = image.noisy.ravel(), kernel_matrix(network, image.noisy)
    rate, level = weights.RATE_GD / np.linalg.eigvalsh(K)[-1], 0.5 * image.noisy.size * (25 / 255) ** 2

    exact, z = [], np.zeros_like(y)
    while not exact or exact[-1] > level:
        exact.append(0.5 * np.sum((z - y) ** 2))
        z = z + rate * K @ (y - z)
    common = round(len(exact) - 2 + (exact[-2] - level) / (exact[-2] - exact[-1]))
    assert found["common_steps"] == common

    module = finite_network(network, 16, 0, "cpu").double()
    start = {name: part.weight.detach().clone() for name, part in module.named_modules() if hasattr(part, "weight")}
    x = torch.from_numpy(image.noisy)[None, None]
    zero = module(x).detach()
    losses, changes = [], []
    while len(losses) <= common or losses[-1] > level:
        loss = 0.5 * (module(x) - zero - x).square().sum()
        losses.append(loss.item())
        changes.append(norms_of(module, start))
        gradients = torch.autograd.grad(loss, list(module.parameters()))
        with torch.no_grad():
            for parameter, gradient in zip(module.parameters(), gradients, strict=True):
                parameter -= rate * gradient
    below = next(n for n, loss in enumerate(losses) if loss <= level)
    share = (losses[below - 1] - level) / (losses[below - 1] - losses[below])
    assert found["level"] == pytest.approx(level, rel=1e-12)
    assert found["reached"] == pytest.approx(below - 1 + share, rel=1e-4)
    assert found["loss_at_common_steps"] == pytest.approx(losses[common], rel=1e-4)
    for norm in weights.NORMS:
        assert list(found["change"]["loss"][norm]) == ["0", "2", "4"]
        for name in ("0", "2", "4"):
            last, now = (changes[n][norm][name] for n in (below - 1, below))
            assert found["change"]["loss"][norm][name] == pytest.approx(last + share * (now - last), rel=1e-3)
            assert found["change"]["steps"][norm][name] == pytest.approx(changes[common][norm][name], rel=1e-3)


def test_every_convolution_has_its_slopes():
    records = weights_records(weights.PAPER)
    for record in records:
        for norm, changes in record.values["change"]["loss"].items():
            changes["second"] = record.settings["width"] ** (-0.75 if norm == "l2" else -1.75)
            changes["last"] = changes.pop("last")
    text = weights.by_layer(records)
    assert "| U-Net, 3 of 4 (hidden) | -0.75 ± 0.00 | -1.75 ± 0.00 | -0.75 ± 0.00 | -1.75 ± 0.00 |" in text
    assert "| U-Net, 4 of 4 (last) | -0.50 ± 0.00 | -1.50 ± 0.00 | 0.00 ± 0.00 | -1.00 ± 0.00 |" in text
    assert text.count("(hidden)") == 6
    assert text in weights.text(records)
    assert weights.text(records).count("| Adam, U-Net | 16 |") == 1
    assert "after 16 and after 64 steps, and at the same loss" in weights.claims(records)[2].statement


# --- Pictures -----------------------------------------------------------------------------------------------------


def test_problem_is_part_of_the_reduced_picture():
    import skimage.data

    found = data.problem("astronaut", 16, reduction=4, centre=(0.25, 0.5))
    whole = skimage.data.astronaut().astype(float)
    want = whole[4 * 24 : 4 * 40, 4 * 56 : 4 * 72].mean(axis=2).reshape(16, 4, 16, 4).mean(axis=(1, 3))
    shift = 255 * found.clean - want
    np.testing.assert_allclose(shift, shift.mean(), atol=1e-9)
    assert found.noisy.mean() == pytest.approx(0, abs=1e-12)
    noise = found.noisy - found.clean
    assert noise.std() == pytest.approx(found.sigma, rel=0.15)
    assert found.psnr(found.noisy) == pytest.approx(-10 * np.log10(np.mean(noise**2)))
    assert data.problem("astronaut", 16, gray=False).noisy.shape == (16, 16, 3)
    with pytest.raises(ValueError, match="side must be at most 128"):
        data.problem("astronaut", 129)
