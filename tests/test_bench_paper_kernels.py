"""The paper's experiments on kernels: what they measure, on cases that are known, and tiny runs of each."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse.linalg
from bench.paper import adam, analysis, comparison, inputs
from bench.paper.architectures import ARCHITECTURES, INPUTS
from bench.paper.comparison import ANY_TIME, REFINED
from bench.paper.experiment import Experiment, Record, Tools
from bench.paper.scales import SCALES
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("torch")

EXPERIMENTS = [pytest.param(module.EXPERIMENT, id=module.EXPERIMENT.name) for module in (inputs, adam, comparison)]
SHAPE = (6, 8)
D = SHAPE[0] * SHAPE[1]


def convolution(kernel: np.ndarray) -> np.ndarray:
    """Matrix with kernel[b - a] in the entry (a, b), pixels wrapped at the border."""
    height, width = kernel.shape
    rows, cols = np.divmod(np.arange(height * width), width)
    return kernel[(rows[None] - rows[:, None]) % height, (cols[None] - cols[:, None]) % width]


def symmetric_kernel(seed: int = 0) -> np.ndarray:
    kernel = np.random.default_rng(seed).standard_normal(SHAPE)
    return (kernel + np.roll(kernel[::-1, ::-1], (1, 1), axis=(0, 1))) / 2


def random_matrix(seed: int = 0) -> np.ndarray:
    root = np.random.default_rng(seed).standard_normal((D, D))
    return root @ root.T / D


class TestTransferFunction:
    def test_of_a_convolution_is_the_dft_of_its_kernel(self) -> None:
        kernel = symmetric_kernel()
        gain = analysis.transfer_function(convolution(kernel), SHAPE)
        np.testing.assert_allclose(gain, np.fft.fft2(kernel).real, atol=1e-12)

    def test_of_a_convolution_is_what_it_does_to_a_wave(self) -> None:
        kernel = symmetric_kernel(1)
        rows, cols = np.mgrid[: SHAPE[0], : SHAPE[1]]
        wave = np.exp(2j * np.pi * (2 * rows / SHAPE[0] + 3 * cols / SHAPE[1]))
        gain = analysis.transfer_function(convolution(kernel), SHAPE)[2, 3]
        np.testing.assert_allclose(convolution(kernel) @ wave.ravel(), gain * wave.ravel(), atol=1e-12)

    def test_of_any_matrix_is_a_rayleigh_quotient(self) -> None:
        matrix = random_matrix()
        rows, cols = np.mgrid[: SHAPE[0], : SHAPE[1]]
        wave = np.exp(2j * np.pi * (rows / SHAPE[0] + 2 * cols / SHAPE[1])).ravel()
        expected = (wave.conj() @ matrix @ wave).real / D
        assert analysis.transfer_function(matrix, SHAPE)[1, 2] == pytest.approx(expected, rel=1e-12)

    def test_of_the_identity_is_one(self) -> None:
        np.testing.assert_allclose(analysis.transfer_function(np.eye(D), SHAPE), np.ones(SHAPE), atol=1e-14)

    def test_filters_act_on_the_gains_of_a_convolution(self) -> None:
        matrix = convolution(symmetric_kernel(2))
        theta = matrix @ matrix.T
        spectrum = analysis.Spectrum(theta)
        gain = analysis.transfer_function(theta, SHAPE)
        expected = 1 - (1 - gain / gain.max()) ** 7
        np.testing.assert_allclose(
            analysis.transfer_function(spectrum.filter_matrix(7), SHAPE), expected, rtol=0, atol=1e-12
        )


class TestStationary:
    def test_nearest_convolution_of_a_convolution_is_itself(self) -> None:
        kernel = symmetric_kernel()
        np.testing.assert_allclose(analysis.by_displacement(convolution(kernel), SHAPE), kernel, atol=1e-14)

    def test_nearest_convolution_leaves_the_least(self) -> None:
        # It is the orthogonal projection onto the convolutions: any other leaves more.
        matrix = random_matrix()
        nearest = analysis.by_displacement(matrix, SHAPE)
        left = np.sum((matrix - convolution(nearest)) ** 2)
        assert analysis.share_not_stationary(matrix, SHAPE) == pytest.approx(left / np.sum(matrix**2), rel=1e-12)
        for seed in range(5):
            other = nearest + 0.1 * symmetric_kernel(seed)
            assert np.sum((matrix - convolution(other)) ** 2) > left

    def test_share_is_zero_for_a_convolution(self) -> None:
        assert analysis.share_not_stationary(convolution(symmetric_kernel()), SHAPE) < 1e-14

    def test_share_of_one_pixel(self) -> None:
        matrix = np.zeros((D, D))
        matrix[5, 5] = 2.0
        assert analysis.share_not_stationary(matrix, SHAPE) == pytest.approx(1 - 1 / D, rel=1e-12)

    def test_gains_of_all_pixels_of_a_convolution_are_its_profile(self) -> None:
        matrix = convolution(symmetric_kernel())
        _, mean, _ = analysis.radial_profile(analysis.transfer_function(matrix, SHAPE), 4)
        np.testing.assert_allclose(analysis.pixel_gains(matrix, SHAPE, 4), np.tile(mean, (D, 1)), atol=1e-12)

    def test_mean_of_the_pixels_gains_is_the_transfer_function(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(analysis, "PIXELS_AT_ONCE", 7)
        matrix = random_matrix()
        _, mean, _ = analysis.radial_profile(analysis.transfer_function(matrix, SHAPE), 4)
        gains = analysis.pixel_gains(matrix, SHAPE, 4)
        np.testing.assert_allclose(gains.mean(axis=0), mean, atol=1e-12)
        assert gains.std(axis=0)[1:].min() > 1e-3


class TestNeighbourhood:
    def test_nothing_beyond_a_box(self) -> None:
        kernel = np.zeros(SHAPE)
        kernel[np.ix_([0, 1, -1], [0, 1, -1])] = 1.0
        assert analysis.share_beyond(convolution(kernel), SHAPE, 1) == 0.0
        assert analysis.share_beyond(convolution(kernel), SHAPE, 0) == pytest.approx(8 / 9)

    def test_share_counts_squares(self) -> None:
        kernel = np.zeros(SHAPE)
        kernel[0, 0], kernel[0, 3], kernel[0, -3] = 2.0, 1.0, 1.0
        assert analysis.share_beyond(convolution(kernel), SHAPE, 2) == pytest.approx(2 / 6)
        assert analysis.share_beyond(convolution(kernel), SHAPE, 3) == 0.0


class TestRings:
    def test_frequencies_in_cycles_a_pixel(self) -> None:
        frequency = analysis.radial_frequency((4, 8))
        assert frequency[0, 1] == 1 / 8
        assert frequency[2, 0] == 0.5
        assert frequency[1, 2] == pytest.approx(np.hypot(1 / 4, 2 / 8))

    def test_profile_of_a_function_of_frequency(self) -> None:
        frequency = analysis.radial_frequency((32, 32))
        centres, mean, deviation = analysis.radial_profile(frequency, 10)
        assert mean[0] == 0.0
        assert np.abs(mean - centres).max() <= 0.025
        assert deviation.max() <= 0.025

    def test_frequencies_beyond_one_half_are_left_out(self) -> None:
        gain = np.where(analysis.radial_frequency((16, 16)) > 0.5, 1e9, 1.0)
        np.testing.assert_array_equal(analysis.radial_profile(gain, 8)[1], np.ones(9))

    def test_empty_rings_are_nan(self) -> None:
        _, mean, _ = analysis.radial_profile(np.ones((4, 4)), 20)
        assert np.isnan(mean).any()
        np.testing.assert_array_equal(np.isnan(mean), np.isnan(analysis.radial_mean(np.ones((1, 4, 4)), 20))[0])


class TestSpectrum:
    def test_filter_is_gradient_descent(self) -> None:
        theta, y = random_matrix(), np.random.default_rng(1).standard_normal((D, 2))
        eta = 1 / np.linalg.eigvalsh(theta)[-1]
        z, path = np.zeros_like(y), []
        for _ in range(6):
            z = z + eta * theta @ (y - z)
            path.append(z)
        spectrum = analysis.Spectrum(theta)
        np.testing.assert_allclose(spectrum.filtered(y, np.array([1, 4, 6])), [path[n] for n in (0, 3, 5)], atol=1e-12)
        np.testing.assert_allclose(spectrum.filter_matrix(6) @ y, path[5], atol=1e-12)

    def test_rounding_leaves_no_negative_eigenvalue(self) -> None:
        direction = np.random.default_rng(0).standard_normal(D)
        spectrum = analysis.Spectrum(np.outer(direction, direction))
        assert spectrum.values.min() == 0.0
        assert np.isfinite(spectrum.gains(np.array([10**6]))).all()


class TestAlignment:
    def test_of_a_vector_in_the_span_is_one(self) -> None:
        basis, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((D, 3)))
        assert analysis.alignment(basis, basis @ [1.0, -2.0, 0.5]) == pytest.approx(1.0, rel=1e-12)

    def test_of_an_orthogonal_vector_is_zero(self) -> None:
        basis = np.eye(D)[:, :3]
        assert analysis.alignment(basis, np.eye(D)[5]) == 0.0

    @given(angle=st.floats(0, np.pi))
    @settings(deadline=None, max_examples=20)
    def test_is_the_cosine_squared(self, angle: float) -> None:
        x = 3.0 * (np.cos(angle) * np.eye(D)[0] + np.sin(angle) * np.eye(D)[1])
        assert analysis.alignment(np.eye(D)[:, :1], x) == pytest.approx(np.cos(angle) ** 2, abs=1e-12)

    def test_of_several_columns_weighs_them_by_their_energy(self) -> None:
        x = np.stack([3.0 * np.eye(D)[0], 1.0 * np.eye(D)[1]], axis=1)
        assert analysis.alignment(np.eye(D)[:, :1], x) == pytest.approx(0.9)

    def test_kernel_made_of_the_target_has_alignment_one(self) -> None:
        x = np.random.default_rng(0).standard_normal(D)
        theta = np.outer(x, x)
        operator = scipy.sparse.linalg.aslinearoperator(theta)
        for kernel in (theta, operator):
            assert analysis.kernel_alignment(kernel, x, float(np.linalg.norm(theta))) == pytest.approx(1.0)

    def test_identity_has_alignment_one_over_root_d(self) -> None:
        x = np.random.default_rng(0).standard_normal(D)
        assert analysis.kernel_alignment(np.eye(D), x, np.sqrt(D)) == pytest.approx(D**-0.5)

    def test_gray_part_of_a_kernel_that_does_not_mix_colours(self) -> None:
        theta = random_matrix()
        gray = analysis.in_gray(scipy.sparse.linalg.aslinearoperator(np.kron(theta, np.eye(3))), 3)
        np.testing.assert_allclose(gray @ np.eye(D), theta, atol=1e-13)
        np.testing.assert_allclose(gray @ theta[0], theta @ theta[0], atol=1e-13)

    def test_gray_part_is_the_kernel_of_the_mean(self) -> None:
        # of outputs J with rows (pixel, colour): their mean over the colours has the Jacobian (J_r + J_g + J_b)/3
        jacobian = np.random.default_rng(0).standard_normal((D, 3, 5))
        rows = jacobian.reshape(3 * D, 5)
        mean = jacobian.mean(axis=1)
        gray = analysis.in_gray(scipy.sparse.linalg.aslinearoperator(rows @ rows.T), 3)
        np.testing.assert_allclose(gray @ np.eye(D), 3 * mean @ mean.T, atol=1e-12)


class TestChanges:
    def test_with_unit_vectors_as_probes_it_is_the_change_itself(self) -> None:
        kernels = np.stack([random_matrix(seed) for seed in range(3)])
        expected = [np.linalg.norm(k - kernels[0]) / np.linalg.norm(kernels[0]) for k in kernels]
        np.testing.assert_allclose(analysis.relative_changes(kernels), expected, rtol=1e-12)

    def test_with_random_probes_it_is_near(self) -> None:
        kernels = np.stack([random_matrix(seed) for seed in range(2)])
        probes = np.random.default_rng(1).standard_normal((D, 2000))
        exact = np.linalg.norm(kernels[1] - kernels[0]) / np.linalg.norm(kernels[0])
        assert analysis.relative_changes(kernels @ probes)[1] == pytest.approx(exact, rel=0.03)


class TestTimes:
    def test_times_are_geometric_and_end_at_the_last(self) -> None:
        steps = analysis.times(1000, 31)
        assert (steps[0], steps[-1]) == (1, 1000)
        assert (np.diff(steps) > 0).all()
        assert len(steps) <= 31
        large = steps[steps > 300]
        assert np.ptp(large[1:] / large[:-1]) <= 1 / 100  # rounded to whole steps

    def test_relative_distance(self) -> None:
        assert analysis.relative_distance(np.array([3.0, 4.5]), np.array([3.0, 4.0])) == pytest.approx(0.1)


class TestSmallThings:
    def test_geometric_mean(self) -> None:
        assert analysis.geometric_mean(np.array([1.0, 4.0, 16.0])) == pytest.approx(4.0, rel=1e-12)

    def test_largest_eigenvalue(self) -> None:
        theta = random_matrix()
        operator = scipy.sparse.linalg.aslinearoperator(theta)
        expected = np.linalg.eigvalsh(theta)[-1]
        assert analysis.largest_eigenvalue(operator, 1e-3) == pytest.approx(expected, rel=1e-3)


def record(picture: str, network: str | None = None, source: str = "image", seed: int = 0, **values: float) -> Record:
    settings: dict[str, Any] = {"picture": picture}
    if network is not None:
        settings |= {"network": network, "input": source, "seed": seed}
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
        mean = comparison.averaged({"a": [20.0, 22.0], "b": [30.0, 34.0]})
        assert mean.mean == pytest.approx(26.5)
        assert mean.pictures == pytest.approx(11 / np.sqrt(2))  # of 21 and 32
        assert mean.seeds == pytest.approx(np.sqrt((2 + 8) / 2))

    def test_pictures_count_alike_however_many_seeds_they_have(self) -> None:
        assert comparison.averaged({"a": [10.0], "b": [20.0, 20.0, 20.0]}).mean == pytest.approx(15.0)

    def test_one_picture_and_one_seed_have_no_spread(self) -> None:
        mean = comparison.averaged({"a": [20.0]})
        assert mean.mean == 20.0
        assert np.isnan(mean.pictures)
        assert np.isnan(mean.seeds)

    def test_means_are_over_the_pictures_that_have_everything(self) -> None:
        part = records("b", gd=40.0)[:-1]
        found = comparison.means([*records("a", gd=30.0), *part])
        assert comparison.complete([*records("a"), *part]) == ["a"]
        assert found["gd", "unet", "noise"].mean == 30.0

    def test_without_the_peers_a_picture_is_not_complete(self) -> None:
        assert comparison.complete(records("a")[1:]) == []

    def test_every_seed_is_needed(self) -> None:
        assert comparison.complete([*records("a", seeds=2), *records("b", seeds=1)]) == ["a"]

    def test_a_peer_left_out_for_a_picture_has_no_mean(self) -> None:
        both = [*records("a"), *records("b")]
        both[0].values["bm3d"] = 30.0
        assert ("bm3d",) not in comparison.means(both)
        assert comparison.means(both)["nlm",].mean == 25.0

    def test_pairs_in_another_order(self) -> None:
        theirs = {"a": 1.0, "b": 2.0, "c": 3.0, "d": 3.0}
        assert comparison.discordant(theirs, theirs) == ([], 5)  # c and d are tied
        swapped = {"a": 2.0, "b": 1.0, "c": 3.0, "d": 4.0}
        assert comparison.discordant(swapped, theirs) == ([("a", "b")], 5)
        assert len(comparison.discordant({key: -value for key, value in theirs.items()}, theirs)[0]) == 5


class TestVerdicts:
    def test_of_the_table(self) -> None:
        good = [*records("a", gd=20.0, exact=20.4, adam=25.0), *records("b", gd=20.0, exact=20.4, adam=25.0)]
        for r in good:
            if r.settings.get("input") == "image":
                r.values["gd"], r.values["exact"], r.values[ANY_TIME] = 22.0, 22.4, 23.0
                r.values[REFINED] = 22.5
        verdicts = [claim.verdict for claim in comparison.claims(good)]
        assert verdicts[:4] == ["holds"] * 4
        bad = [*records("a", gd=20.0, exact=21.0, adam=19.0), *records("b", gd=20.0, exact=21.0, adam=19.0)]
        assert [claim.verdict for claim in comparison.claims(bad)][:4] == ["does not hold"] * 4

    def test_of_the_papers_order(self) -> None:
        all_records = records("a")
        for r in all_records:
            for (method, network, source), value in comparison.PAPER.items():
                if (r.settings.get("network"), r.settings.get("input")) == (network, source):
                    r.values[method] = value
        assert comparison.claims(all_records)[4].verdict == "holds"
        for r in all_records:
            for method in comparison.METHODS:
                if method in r.values:
                    r.values[method] *= -1
        assert comparison.claims(all_records)[4].verdict == "does not hold"

    @pytest.mark.parametrize("experiment", EXPERIMENTS)
    def test_nothing_run_is_no_verdict(self, experiment: Experiment) -> None:
        found = experiment.claims([])
        assert found
        assert {claim.verdict for claim in found} == {"not run at this scale"}
        assert experiment.figures([]) == []
        assert experiment.text([])

    def test_of_the_inputs(self) -> None:
        frequencies = np.linspace(0, 0.5, 6)

        def case(source: str, **changed: Any) -> Record:
            values = {"psnr": 25.0, "noisy_psnr": 20.0, "beyond": 0.5, "not_stationary": 0.5}
            gain = np.linspace(1, 0.4, 6)
            if source == "noise":
                values |= {"psnr": 22.0, "beyond": 0.01, "not_stationary": 0.0}
            values |= {key: value for key, value in changed.items() if key in values}
            gain = changed.get("gain", gain)
            arrays = {"gain": gain, "frequencies": frequencies, "gain_percentiles": np.stack([gain] * 3)}
            return Record("", {"network": "vanilla", "input": source}, values, 1.0, lambda: arrays)

        def verdicts(image: Record, noise: Record) -> list[str]:
            return [claim.verdict for claim in inputs.claims([image, noise])]

        assert verdicts(case("image"), case("noise")) == ["holds"] * 4
        local = case("image", beyond=0.05, not_stationary=0.05, psnr=21.0)
        assert verdicts(local, case("noise")) == ["does not hold", "holds", "does not hold", "does not hold"]
        for bad in (
            case("noise", not_stationary=0.05),
            case("noise", gain=np.full(6, 0.8)),  # no fall
            case("noise", gain=np.array([1, 0.9, 0.5, 0.7, 0.4, 0.3])),  # a rise on the way
        ):
            assert verdicts(case("image"), bad)[1] == "does not hold"


class TestTinyRuns:
    @pytest.mark.parametrize("experiment", EXPERIMENTS)
    def test_end_to_end(self, experiment: Experiment, tmp_path: Path) -> None:
        scale = SCALES["tiny"]
        found = experiment.units(scale)
        assert len({unit.key for unit in found}) == len(found)
        kept = []
        for unit in found:
            result = experiment.run(unit.settings, Tools())
            values = json.loads(json.dumps(result.values, allow_nan=False))
            kept.append(Record(unit.key, unit.settings, values, 1.0, lambda arrays=result.arrays: arrays))
        claims, drawn = experiment.claims(kept), experiment.figures(kept)
        assert all(claim.checks for claim in claims)
        assert {claim.figure for claim in claims} <= {picture.name for picture in drawn}
        for picture in drawn:
            picture.figure.savefig(tmp_path / "figure.png", dpi=30)
        assert "|---" in experiment.text(kept)
        # Any part of the records will do.
        for part in (kept[:1], kept[1:], kept[::2]):
            experiment.claims(part)
            experiment.figures(part)
            experiment.text(part)
