"""The table of pictures: means, verdicts, and units computed again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from experiments import analysis, architectures, data
from experiments.architectures import ARCHITECTURES, INPUTS
from experiments.experiment import Record, Tools
from experiments.scales import SCALES
from experiments.table import EXPERIMENT, claims, summary
from experiments.table import measure as table
from experiments.table.measure import ANY_TIME, REFINED
from experiments.tests.again import DB, best_of, dense_kernel, distance, filtered, start_module, trained
from experiments.tests.toys import findings
from ntkfast import NTK, nystrom
from ntkfast.reference import kernel_matrix

pytest.importorskip("torch")


SIZES = {"side": 8, "reduction": 4, "landmarks": 0.1, "width": 8, "most_steps": 300, "any_time_steps": 999}


def record(picture: str, network: str | None = None, source: str = "image", seed: int = 0, **values: float) -> Record:
    settings: dict[str, Any] = {"picture": picture}
    if network is not None:
        settings |= {"network": network, "input": source, "seed": seed, **SIZES}
        values = {"gd": 20.0, "exact": 20.0, "nystrom": 20.0, "adam": 20.0, ANY_TIME: 20.0, "distance": 0.0} | values
        if source == "image":
            values = {REFINED: 20.5} | values
    return Record(f"{picture}/{network}/{source}/{seed}", settings, values, 1.0, dict)


def records(picture: str, seeds: int = 1, **values: float) -> list[Record]:
    """All of a picture, with some figures in all of its cases."""
    cases = [
        record(picture, network, source, seed, **values)
        for network in ARCHITECTURES
        for source in INPUTS
        for seed in range(seeds)
    ]
    return [record(picture, noisy=20.0, nlm=25.0), *cases]


class TestAverages:
    def test_mean_and_spread(self) -> None:
        mean = summary.averaged({"a": [20.0, 22.0], "b": [30.0, 34.0]})
        assert mean.mean == pytest.approx(26.5)
        assert mean.pictures == pytest.approx(11 / np.sqrt(2))  # the spread of 21 and 32
        assert mean.seeds == pytest.approx(np.sqrt((2 + 8) / 2))

    def test_pictures_count_alike_however_many_seeds_they_have(self) -> None:
        assert summary.averaged({"a": [10.0], "b": [20.0, 20.0, 20.0]}).mean == pytest.approx(15.0)

    def test_one_picture_and_one_seed_have_no_spread(self) -> None:
        mean = summary.averaged({"a": [20.0]})
        assert mean.mean == 20.0
        assert np.isnan(mean.pictures)
        assert np.isnan(mean.seeds)

    def test_means_are_over_the_pictures_that_have_everything(self) -> None:
        part = records("b", gd=40.0)[:-1]
        found = summary.means([*records("a", gd=30.0), *part])
        assert summary.complete([*records("a"), *part]) == ["a"]
        assert found["gd", "unet", "noise"].mean == 30.0

    def test_without_the_peers_a_picture_is_not_complete(self) -> None:
        assert summary.complete(records("a")[1:]) == []

    def test_every_seed_is_needed(self) -> None:
        assert summary.complete([*records("a", seeds=2), *records("b", seeds=1)]) == ["a"]

    def test_a_peer_left_out_for_a_picture_has_no_mean(self) -> None:
        both = [*records("a"), *records("b")]
        both[0].values["bm3d"] = 30.0
        assert ("bm3d",) not in summary.means(both)
        assert summary.means(both)["nlm",].mean == 25.0

    def test_pairs_in_another_order(self) -> None:
        theirs = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 3.0}
        assert claims.discordant(theirs, theirs) == ([], 5)  # c and d are tied
        swapped = {"a": 2.0, "b": 1.0, "c": 3.0, "d": 4.0}
        assert claims.discordant(swapped, theirs) == ([("a", "b")], 5)
        assert len(claims.discordant({key: -value for key, value in theirs.items()}, theirs)[0]) == 5


class TestVerdicts:
    def test_of_the_table(self) -> None:
        good = [*records("a", gd=20.0, exact=20.4, adam=25.0), *records("b", gd=20.0, exact=20.4, adam=25.0)]
        for r in good:
            if r.settings.get("input") == "image":
                r.values["gd"], r.values["exact"], r.values[ANY_TIME] = 22.0, 22.4, 23.0
                r.values[REFINED] = 22.5
        verdicts = [claim.verdict for claim in findings(EXPERIMENT, good)]
        assert verdicts[:4] == ["holds"] * 4
        bad = [*records("a", gd=20.0, exact=21.0, adam=19.0), *records("b", gd=20.0, exact=21.0, adam=19.0)]
        assert [claim.verdict for claim in findings(EXPERIMENT, bad)][:4] == ["does not hold"] * 4

    def test_of_the_papers_order(self) -> None:
        all_records = records("a")
        for r in all_records:
            for (method, network, source), value in claims.ON_HOUSE.items():
                if (r.settings.get("network"), r.settings.get("input")) == (network, source):
                    r.values[method] = value
        assert findings(EXPERIMENT, all_records)[4].verdict == "holds"
        for r in all_records:
            for method in summary.METHODS:
                if method in r.values:
                    r.values[method] *= -1
        assert findings(EXPERIMENT, all_records)[4].verdict == "does not hold"

    def test_remarks_come_with_the_figures_that_they_explain(self) -> None:
        """All of these figures are equal but those named: the remarks follow them."""

        def remarks(**changed: float) -> list[str]:
            found = records("a", **{"gd": 20.0, "adam": 21.0, "exact": 20.0} | changed)
            for r in found[1:]:
                r.settings.update(most_steps=300, any_time_steps=100_000)
                r.values.update({f"{method}_steps": 300 if method == "gd" else 7 for method in ("gd", "adam", "exact")})
                if r.settings["input"] == "image":
                    r.values.update({"gd": 20.5, "refined": 20.5, "refined_steps": 300} | changed)
            return [claim.remark for claim in findings(EXPERIMENT, found)]

        image, adam_, _, refining, _ = remarks(**{ANY_TIME: 20.5})
        assert "With the U-Net noise is the better input for the exact kernel too, by 0.00 dB" in image
        assert "exact kernel at any t gives 20.50 dB, no more than Adam" in adam_
        assert "last allowed in Adam 0 of 1, gradient descent 1 of 1" in adam_
        assert claims.OTHER not in adam_
        assert "autoencoder, noisy image +0.50 dB, better on 1 of 1 (in every run a best step is the last)" in adam_
        assert "vanilla CNN, iid noise +1.00 dB" in adam_
        assert refining == ""
        adam_ = remarks(**{ANY_TIME: 22.0})[1]
        assert "22.00 dB, more than Adam, whose lead over gradient descent is one of few steps" in adam_
        adam_ = remarks(**{ANY_TIME: 22.0}, gd=21.5)[1]
        assert "22.00 dB, more than both" in adam_
        assert claims.OTHER in adam_
        assert "input noisy image may be one of the limit on steps" in adam_
        refining = remarks(**{ANY_TIME: 22.0}, refined=19.0)[3]
        assert (
            "autoencoder: the best step is the last allowed in NTK, exact 0 of 1, NTK, exact, refined 1 of 1"
            in refining
        )

    def test_losses_that_the_limit_on_steps_does_not_explain(self) -> None:
        """Three pictures; Adam loses by 1 dB where it had steps left, and by 4 dB where it had not."""
        found = [*records("a", gd=21.0), *records("b", gd=21.0), *records("c", gd=24.0)]
        for r in found:
            if "network" in r.settings:
                r.settings["most_steps"] = 300
                r.values.update(gd_steps=7, adam_steps=300 if r.settings["picture"] == "c" else 9)
        whole, inside = (
            summary.paired(found, "adam", "gd", "unet", "noise", before_the_last=cut) for cut in (False, True)
        )
        assert whole == summary.Paired(-2.0, pytest.approx(1.0), 0, 3)
        assert inside == summary.Paired(-1.0, pytest.approx(0.0), 0, 2)
        remark = findings(EXPERIMENT, found)[1].remark
        assert (
            "U-Net, iid noise -2.00 ± 1.00 dB, better on 0 of 3 (where neither best step is the last: -1.00 ± 0.00 dB, "
            "better on 0 of 2)" in remark
        )
        assert remark.count("not explained by the limit on steps") == 2
        assert summary.paired(found, "gd", "adam", "unet", "noise").won == 3

    def test_trained_networks_may_differ_from_the_exact_kernel_in_the_better_input(self) -> None:
        found = records("a", gd=20.0)
        for r in found[1:]:
            r.values[ANY_TIME] = 23.0 if r.settings["input"] == "image" else 22.0
        remark = findings(EXPERIMENT, found)[0].remark
        assert "With the vanilla CNN the exact kernel has the order claimed, by 1.00 dB" in remark

    def test_best_steps_at_the_last_one_are_named(self) -> None:
        found = records("a", seeds=2)
        for r in found[1:]:
            case = {"side": 8, "reduction": 4, "landmarks": 0.1, "width": 8, "most_steps": 300, "any_time_steps": 999}
            r.settings.update(case)
            late = (r.settings["network"], r.settings["input"], r.settings["seed"]) == ("unet", "noise", 1)
            r.values.update(gd_steps=300 if late else 299, exact_any_time_steps=300)
        text = EXPERIMENT.text(EXPERIMENT.summary(found))
        assert "might be better, in gradient descent, U-Net, iid noise (1 of 2).\n" in text
        assert "0.003/c for the effective weights, or half of it in the U-Net" in text


@pytest.mark.parametrize("source", INPUTS)
def test_table_unit_computed_again(source: str) -> None:
    unit = next(u for u in table.units(SCALES["tiny"]) if u.key.endswith(f"autoencoder/{source}/seed=0"))
    s = unit.settings
    result = table.run(s, Tools())
    problem = data.problem(s["picture"], s["side"], reduction=s["reduction"], gray=False)
    y, network = problem.noisy, architectures.network("autoencoder")
    x = y if source == "image" else architectures.noise_channels(s["side"], s["channels"], 0)
    steps = range(1, s["most_steps"] + 1)

    exact = kernel_matrix(network, x, channel_axis=-1)
    pixels = nystrom(NTK(network, x, channel_axis=-1), round(0.1 * len(exact)), landmarks="random", rng=0).landmarks
    assert len(pixels) == 14
    columns = exact[:, pixels]
    later = analysis.times(s["any_time_steps"], s["points"])
    paths = {
        "exact": filtered(exact, y, steps),
        ANY_TIME: filtered(exact, y, later),
        "nystrom": filtered(columns @ np.linalg.pinv(columns[pixels]) @ columns.T, y, steps),
    }
    once = paths["exact"][best_of(problem, paths["exact"])[1]]
    if source == "image":
        paths[REFINED] = filtered(kernel_matrix(network, once, channel_axis=-1), y, steps)
    largest = np.linalg.eigvalsh(exact)[-1]
    own = np.linalg.eigvalsh(dense_kernel(start_module(network, 8, 0, x.shape[2]), x))[-1]
    ratio = result.values["eigenvalue_ratio"]
    assert ratio == pytest.approx(max(1.0, own / largest), rel=0.01)
    for name, rate in (("gd", 1 / (ratio * largest)), ("adam", s["adam_rate"] / max(8, x.shape[2]))):
        paths[name] = trained(start_module(network, 8, 0, x.shape[2]), x, y, name, rate, s["most_steps"])[1:]
    assert {name for name in result.values if f"{name}_steps" in result.values} == set(paths)
    bests = {}
    for name, path in paths.items():
        quality, at = best_of(problem, path)
        bests[name] = path[at]
        assert result.values[name] == pytest.approx(quality, abs=DB), name
        assert result.values[f"{name}_steps"] == (later if name == ANY_TIME else steps)[at], name
        np.testing.assert_allclose(result.arrays[name], path[at], atol=2e-3)
    assert result.values["distance"] == pytest.approx(distance(bests["gd"], bests["exact"]), rel=1e-2)
