"""The paper's experiments on kernels: what they measure, on cases that are known, and tiny runs of each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse.linalg
from bench.paper import adam, analysis, architectures, comparison, data, inputs
from bench.paper.architectures import ARCHITECTURES, INPUTS
from bench.paper.comparison import ANY_TIME, REFINED
from bench.paper.experiment import Experiment, Record, Tools
from bench.paper.scales import SCALES
from hypothesis import given, settings
from hypothesis import strategies as st

from ntkfast import NTK, nystrom
from ntkfast.reference import kernel_matrix

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

    def test_remarks_come_with_the_figures_that_they_explain(self) -> None:
        """All of these figures are equal but those named: the remarks follow them."""

        def remarks(**changed: float) -> list[str]:
            found = records("a", **{"gd": 20.0, "adam": 21.0, "exact": 20.0} | changed)
            for r in found[1:]:
                r.settings.update(most_steps=300, any_time_steps=100_000)
                r.values.update({f"{method}_steps": 300 if method == "gd" else 7 for method in ("gd", "adam", "exact")})
                if r.settings["input"] == "image":
                    r.values.update({"gd": 20.5, "refined": 20.5, "refined_steps": 300} | changed)
            return [claim.remark for claim in comparison.claims(found)]

        image, adam_, _, refining, _ = remarks(**{ANY_TIME: 20.5})
        assert "With the U-Net noise is the better input for the exact kernel too, by 0.00 dB" in image
        assert "exact kernel at any t gives 20.50 dB, no more than Adam" in adam_
        assert "last allowed in Adam 0 of 1, gradient descent 1 of 1" in adam_
        assert comparison.OTHER not in adam_
        assert "autoencoder, noisy image +0.50 dB, better on 1 of 1 (in every run a best step is the last)" in adam_
        assert "vanilla CNN, iid noise +1.00 dB" in adam_
        assert refining == ""
        adam_ = remarks(**{ANY_TIME: 22.0})[1]
        assert "22.00 dB, more than Adam, whose lead over gradient descent is one of few steps" in adam_
        adam_ = remarks(**{ANY_TIME: 22.0}, gd=21.5)[1]
        assert "22.00 dB, more than both" in adam_
        assert comparison.OTHER in adam_
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
            comparison.paired(found, "adam", "gd", "unet", "noise", before_the_last=cut) for cut in (False, True)
        )
        assert whole == comparison.Paired(-2.0, pytest.approx(1.0), 0, 3)
        assert inside == comparison.Paired(-1.0, pytest.approx(0.0), 0, 2)
        remark = comparison.claims(found)[1].remark
        assert (
            "U-Net, iid noise -2.00 ± 1.00 dB, better on 0 of 3 (where neither best step is the last: -1.00 ± 0.00 dB, "
            "better on 0 of 2)" in remark
        )
        assert remark.count("not explained by the limit on steps") == 2
        assert comparison.paired(found, "gd", "adam", "unet", "noise").won == 3

    def test_trained_networks_may_differ_from_the_exact_kernel_in_the_better_input(self) -> None:
        found = records("a", gd=20.0)
        for r in found[1:]:
            r.values[ANY_TIME] = 23.0 if r.settings["input"] == "image" else 22.0
        remark = comparison.claims(found)[0].remark
        assert "With the vanilla CNN the exact kernel has the order claimed, by 1.00 dB" in remark

    def test_best_steps_at_the_last_one_are_named(self) -> None:
        found = records("a", seeds=2)
        for r in found[1:]:
            case = {"side": 8, "reduction": 4, "landmarks": 0.1, "width": 8, "most_steps": 300, "any_time_steps": 999}
            r.settings.update(case)
            late = (r.settings["network"], r.settings["input"], r.settings["seed"]) == ("unet", "noise", 1)
            r.values.update(gd_steps=300 if late else 299, exact_any_time_steps=300)
        text = comparison.text(found)
        assert "might be better, in gradient descent, U-Net, iid noise (1 of 2).\n" in text
        assert "0.003/c for the effective weights, or half of it in the U-Net" in text

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
            values: dict[str, Any] = {"psnr": 25.0, "noisy_psnr": 20.0, "beyond": 0.5, "not_stationary": 0.5}
            gain = np.linspace(1, 0.4, 6)
            if source == "noise":
                values |= {"psnr": 22.0, "beyond": 0.01, "not_stationary": 0.0}
            values |= {key: value for key, value in changed.items() if key in values}
            gain = changed.get("gain", gain).tolist()
            values |= {"gain": gain, "frequencies": frequencies.tolist(), "gain_percentiles": [gain] * 3}
            return Record("", {"network": "vanilla", "input": source}, values, 1.0, dict)

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


def adam_record(network: str, source: str, width: int, outputs: dict[str, float], **values: float) -> Record:
    """A unit of ``adam`` with filters whose outputs are this far from Adam's; other figures agree with the claims."""
    main = width == 64
    agreeing = {
        "gd_change_at_loss": width**-0.5,
        "adam_change_at_loss": 2.0,
        "fast_adam_change_at_loss": 3.0,
        "noise_energy": 1.0,
        "gd_psnr": 24.0,
        "fast_adam_psnr": 21.0,
        "gd_distance": 0.05,
        "adam_distance": 0.2,
        "fast_adam_distance": 0.3,
        **{f"{name}_alignment": value for name, value in (("start", 0.5), ("gd", 0.6), ("adam", 0.7))},
        **{f"{name}_kernel_alignment": value for name, value in (("start", 0.5), ("gd", 0.5), ("adam", 0.6))},
        "gd_change": 0.1,
        "adam_change": 0.2,
        "start_filter_psnr": 22.0,
        "exact_filter_psnr": 22.0,
        "adam_psnr": 25.0,
        "adam_filter_psnr": 24.8,
        "refined_filter_psnr": 25.1,
    }
    for name, distance in ({"filter": 0.1, "start_filter": 0.4} | outputs).items():
        agreeing[f"adam_distance_to_{name}"] = distance
    settings = {"network": network, "input": source, "width": width, "main": main}
    found: dict[str, Any] = agreeing | values
    for name in ("gd", "adam", "fast_adam"):
        # Half of the change at the loss, 1, where that falls half way to 0.
        found[f"{name}_losses"] = {"steps": [0, 4], "loss": [2.0, 0.0]}
        found[f"{name}_changes"] = {"steps": [0, 4], "change": [0.0, 2 * found.pop(f"{name}_change_at_loss")]}
    if source == "noise":
        del found["refined_filter_psnr"]
    return Record("", settings, found, 1.0, dict)


def adam_records(outputs: dict[str, float] | None = None, **values: Any) -> list[Record]:
    """Units of ``adam`` at two widths; figures that are functions get the width."""
    return [
        adam_record(
            name, source, width, outputs or {}, **{k: v(width) if callable(v) else v for k, v in values.items()}
        )
        for name in adam.TRAINED
        for source, widths in (("image", (16, 64)), ("noise", (64,)))
        for width in widths
    ]


class TestAdamVerdicts:
    @pytest.mark.parametrize(
        ("changed", "failing"),
        [
            ({}, []),
            ({"gd_change_at_loss": lambda width: width**-0.31}, []),
            ({"gd_change_at_loss": lambda width: width**-0.29}, [0]),
            ({"adam_change_at_loss": lambda width: 4 * width**-0.24}, []),
            ({"adam_change_at_loss": lambda width: 4 * width**-0.26}, ["1 in part"]),
            ({"adam_change_at_loss": 0.1}, ["1 in part"]),  # constant, but less than gradient descent's
            ({"adam_distance": 0.101, "fast_adam_distance": 0.101}, []),
            ({"adam_distance": 0.099, "fast_adam_distance": 0.099}, [2]),
            ({"adam_alignment": 0.55}, ["3 in part"]),  # more than at the start, less than after gradient descent
            ({"gd_alignment": 0.3, "adam_alignment": 0.4}, ["3 in part"]),
            ({"adam_kernel_alignment": 0.49}, ["3 in part"]),
            ({"adam_alignment": 0.4, "adam_kernel_alignment": 0.4}, [3]),
            ({"adam_filter_psnr": 24.6}, []),
            ({"adam_filter_psnr": 24.4}, ["4 in part", 5]),
            ({"start_filter_psnr": 24.9}, ["4 in part"]),
            ({"outputs": {"filter": 0.19}}, []),
            ({"outputs": {"filter": 0.21}}, ["4 in part"]),
            ({"outputs": {"start_filter": 0.15}, "start_filter_psnr": 24.9}, [4]),  # both near: neither explains more
            ({"refined_filter_psnr": 25.4}, [5]),
        ],
    )
    def test_each_bound(self, changed: dict[str, Any], failing: list[Any]) -> None:
        expected = ["holds"] * 6
        for claim in failing:
            number = claim if isinstance(claim, int) else int(claim.split()[0])
            expected[number] = "does not hold" if isinstance(claim, int) else "holds in part"
        claims = adam.claims(adam_records(**changed))
        assert [claim.verdict for claim in claims] == expected
        assert [len(claim.checks) for claim in claims] == [2, 4, 4, 8, 8, 2]
        for number, claim in enumerate(claims):
            assert bool(claim.remark) == (number == 3 or (claim.verdict != "holds" and number not in (0, 2)))

    def test_alignment_is_higher_for_every_seed_or_not(self) -> None:
        """The mean rises in both cases; what one of two seeds does against it counts."""
        for second, verdict in ((0.61, "holds"), (0.59, "holds in part")):
            found = adam_records(adam_alignment=0.9) + adam_records(adam_alignment=second)
            claim = adam.claims(found)[3]
            assert claim.verdict == verdict
            assert f"less gradient descent {second - 0.6:+.4f} (2 seeds)" in claim.checks[0].measured

    def test_a_gradient_descent_that_is_far_itself_is_remarked(self) -> None:
        claims = adam.claims(adam_records(gd_distance=0.11, adam_distance=1.0, fast_adam_distance=1.0))
        assert claims[2].verdict == "holds"
        assert claims[2].remark == adam.NARROW

    def test_changes_are_compared_at_one_loss(self) -> None:
        """The wide network stays above the noise's energy: the narrow one is compared where the wide one ends."""
        found = adam_records(gd_change_at_loss=0.5)
        for r in found:
            if r.settings["width"] == 64:
                r.values["gd_losses"]["loss"] = [2.0, 1.5]
        widths, changes = adam._changes(found, "vanilla", "gd")
        assert adam._level(found, "vanilla") == 1.5
        assert widths.tolist() == [16, 64]
        assert changes.tolist() == [0.25, 1.0]  # after 1 step of 4, and after 4

    def test_the_quality_of_fast_adam_is_told(self) -> None:
        claim = adam.claims(adam_records())[2]
        assert "Adam with 0.1/width 30.0% (21.00 dB at its best), gradient descent 5.0% (24.00 dB)" in (
            claim.checks[1].measured
        )
        assert claim.figure is None

    def test_remarks_quote_the_figures(self) -> None:
        claims = adam.claims(adam_records(adam_alignment=0.4, refined_filter_psnr=26.0, exact_filter_psnr=23.5))
        assert "vanilla CNN, noisy image 20.0% (gradient descent 10.0%)" in claims[3].remark
        assert "autoencoder, noisy image +1.50 dB" in claims[5].remark
        assert "iid noise" not in claims[5].remark

    def test_best_steps_at_the_last_one_are_named(self) -> None:
        unit = adam.units(SCALES["small"])[0]
        figures = {"gd_steps": 200, "adam_steps": 199}
        found = adam_record("vanilla", "image", 64, {}, **figures, gd_psnr=20.0, gd_filter_psnr=20.0)
        found.settings.update(unit.settings | {"main": True})
        assert "gradient descent, vanilla CNN, noisy image, width 16 (1 of 1)." in adam.text([found])


# --- Units computed again, in double precision --------------------------------------------------------------------

Kernel = np.ndarray


def filtered(K: Kernel, y: np.ndarray, steps: Any) -> np.ndarray:
    """(I - (I - K/lambda_max)^t) y for y of shape (H, W, 3) and a kernel of its pixels, or of its numbers."""
    values, vectors = np.linalg.eigh(K)
    inside = vectors.T @ y.reshape(len(K), -1)
    gains = [1 - (1 - np.maximum(values, 0) / values[-1]) ** t for t in steps]
    return np.stack([(vectors @ (gain[:, None] * inside)).reshape(y.shape) for gain in gains])


def best_of(problem: Any, path: np.ndarray) -> tuple[float, int]:
    """The best PSNR of a path, and where it is."""
    error = np.mean(np.square(path - problem.clean), axis=(1, 2, 3))
    return float(-10 * np.log10(error.min())), int(error.argmin())


def image_of(z: Any) -> np.ndarray:
    return z.detach()[0].permute(1, 2, 0).numpy().copy()


def dense_kernel(module: Any, x: np.ndarray) -> np.ndarray:
    """J J^T by autograd, row by row; channels of a pixel together."""
    import torch

    z = module(torch.from_numpy(x).permute(2, 0, 1)[None]).permute(0, 2, 3, 1).reshape(-1)
    weights = list(module.parameters())
    rows = [torch.cat([g.ravel() for g in torch.autograd.grad(one, weights, retain_graph=True)]) for one in z]
    J = torch.stack(rows).numpy()
    return np.asarray(J @ J.T)


def weight_scales(module: Any) -> list[float]:
    return [part.weight_scale for part in module.modules() if hasattr(part, "weight_scale")]


def trained(module: Any, x: np.ndarray, y: np.ndarray, optimizer: str, rate: float, steps: int) -> np.ndarray:
    """All outputs less the first one, by gradient descent or by Adam's formulas on the effective weights; in place."""
    import torch

    inp, target = (torch.from_numpy(image).permute(2, 0, 1)[None] for image in (x, y))
    weights, scales = list(module.parameters()), weight_scales(module)
    first, second = ([torch.zeros_like(w) for w in weights] for _ in range(2))
    start, outputs = module(inp).detach(), []
    for t in range(1, steps + 1):
        gradients = torch.autograd.grad(0.5 * (module(inp) - start - target).square().sum(), weights)
        with torch.no_grad():
            for n, (w, g, s) in enumerate(zip(weights, gradients, scales, strict=True)):
                if optimizer == "gd":
                    w -= rate * g
                    continue
                g = g / s  # of the effective weights s w
                first[n] = 0.9 * first[n] + 0.1 * g
                second[n] = 0.999 * second[n] + 0.001 * g**2
                mean, square = first[n] / (1 - 0.9**t), second[n] / (1 - 0.999**t)
                w -= rate * mean / (square.sqrt() + 1e-8) / s
        outputs.append(image_of(module(inp) - start))
    return np.stack([np.zeros_like(outputs[0]), *outputs])


def start_module(network: Any, width: int, seed: int, channels: int) -> Any:
    return architectures.finite_network(network, width, seed, "cpu", in_channels=channels, out_channels=3).double()


def distance(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.linalg.norm(a - b) / np.linalg.norm(b))


DB = 0.01  # dB; tolerance of single precision, and of filters to 1e-3


def test_adam_unit_computed_again() -> None:
    """The noisy image through the autoencoder, at the main width: every figure but the estimate of |Theta|_F."""
    unit = next(u for u in adam.units(SCALES["tiny"]) if u.key == "autoencoder/image/width=8/seed=0")
    s = unit.settings
    result = adam.run(s, Tools())
    found, arrays = result.values, result.arrays
    problem = data.problem(s["picture"], s["side"], reduction=s["reduction"], centre=tuple(s["centre"]), gray=False)
    y, network = problem.noisy, architectures.network("autoencoder")
    later = range(1, s["closed_form_steps"] + 1)

    def check_filter(name: str, path: np.ndarray) -> np.ndarray:
        quality, at = best_of(problem, path)
        assert found[f"{name}_filter_psnr"] == pytest.approx(quality, abs=DB)
        assert found[f"{name}_filter_steps"] == later[at]
        return path[at]

    exact = kernel_matrix(network, y)
    once = check_filter("exact", filtered(exact, y, later))
    check_filter("refined", filtered(kernel_matrix(network, once), y, later))
    start = dense_kernel(start_module(network, 8, 0, 3), y)
    start_path = filtered(start, y, later)
    np.testing.assert_allclose(arrays["start_output"], check_filter("start", start_path), atol=2e-3)

    rates = {"gd": 1 / max(np.linalg.eigvalsh(exact)[-1], np.linalg.eigvalsh(start)[-1])}
    rates |= {"adam": s["adam_rate"] / 8, "fast_adam": s["fast_adam_rate"] / 8}
    paths = {
        name: trained(start_module(network, 8, 0, 3), y, y, name, rate, s["most_steps"]) for name, rate in rates.items()
    }
    losses = {name: 0.5 * np.square(path - y).sum(axis=(1, 2, 3)) for name, path in paths.items()}
    level = max(y.size * problem.sigma**2 / 2, *(loss.min() for loss in losses.values()))
    assert found["noise_energy"] == pytest.approx(y.size * problem.sigma**2 / 2)
    probes = np.random.default_rng(0).standard_normal((y.size, s["probes"]))
    for name, path in paths.items():
        quality, best = best_of(problem, path)
        assert found[f"{name}_psnr"] == pytest.approx(quality, abs=DB)
        assert found[f"{name}_steps"] == best
        np.testing.assert_allclose(arrays[f"{name}_output"], path[best], atol=1e-4)
        near = min(distance(path[best], z) for z in start_path)
        assert found[f"{name}_distance"] == pytest.approx(near, rel=0.02)
        kernels = []
        for stop in (best, int(np.argmax(losses[name] <= level * (1 + 1e-6)))):
            module = start_module(network, 8, 0, 3)
            if stop:
                trained(module, y, y, name, rates[name], stop)
            kernels.append(dense_kernel(module, y))
        recorded = found[f"{name}_losses"]
        np.testing.assert_allclose(recorded["loss"], losses[name][recorded["steps"]], rtol=1e-4)
        best_change, change = (np.linalg.norm((K - start) @ probes) / np.linalg.norm(start @ probes) for K in kernels)
        assert found[f"{name}_change"] == pytest.approx(best_change, rel=1e-2, abs=1e-5), name
        steps, changes = found[f"{name}_changes"].values()
        assert changes[steps.index(int(np.argmax(losses[name] <= level * (1 + 1e-6))))] == pytest.approx(
            change, rel=1e-2, abs=1e-5
        ), name
        if name in adam.OPTIMIZERS:
            output = check_filter(name, filtered(kernels[0], y, later))
            np.testing.assert_allclose(arrays[f"{name}_filter_output"], output, atol=2e-3)
            for key, other in (("filter", output), ("start_filter", arrays["start_output"])):
                want = distance(other, path[best])
                assert found[f"{name}_distance_to_{key}"] == pytest.approx(want, rel=1e-2, abs=1e-3)
            check_alignment(found, name, kernels[0], problem, s["eigenvectors"], probes)
    check_alignment(found, "start", start, problem, s["eigenvectors"], probes)


def check_alignment(
    found: dict[str, Any], name: str, K: np.ndarray, problem: Any, count: int, probes: np.ndarray
) -> None:
    """Of the part in gray with the clean picture."""
    d = len(K) // 3
    gray = K.reshape(d, 3, d, 3).sum(axis=(1, 3)) / 3
    clean = problem.clean.mean(axis=2).ravel()
    clean = clean - clean.mean()
    vectors = np.linalg.eigh(gray)[1][:, -count:]
    share = np.square(vectors.T @ clean).sum() / (clean @ clean)
    assert found[f"{name}_alignment"] == pytest.approx(share, rel=1e-2, abs=1e-4)
    frobenius = np.linalg.norm(K @ probes) / np.sqrt(3 * probes.shape[1])
    assert found[f"{name}_kernel_alignment"] == pytest.approx(
        clean @ gray @ clean / (clean @ clean * frobenius), rel=1e-3
    )


@pytest.mark.parametrize("source", INPUTS)
def test_table_unit_computed_again(source: str) -> None:
    unit = next(u for u in comparison.units(SCALES["tiny"]) if u.key.endswith(f"autoencoder/{source}/seed=0"))
    s = unit.settings
    result = comparison.run(s, Tools())
    problem = data.problem(s["picture"], s["side"], reduction=s["reduction"], gray=False)
    y, network = problem.noisy, architectures.network("autoencoder")
    x = y if source == "image" else architectures.noise_channels(s["side"], s["channels"], 0)
    steps = range(1, s["most_steps"] + 1)

    exact = kernel_matrix(network, x)
    pixels = nystrom(NTK(network, x), round(0.1 * len(exact)), landmarks="random", seed=0).landmarks
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
        paths[REFINED] = filtered(kernel_matrix(network, once), y, steps)
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


@pytest.mark.parametrize("source", INPUTS)
def test_inputs_unit_computed_again(source: str) -> None:
    unit = next(u for u in inputs.units(SCALES["tiny"]) if u.key == f"autoencoder/{source}")
    s = unit.settings
    result = inputs.run(s, Tools())
    side = s["side"]
    problem = data.problem(s["picture"], side, reduction=s["reduction"], centre=tuple(s["centre"]), gray=False)
    network = architectures.network("autoencoder", "circular")
    K = kernel_matrix(network, architectures.limit_input(source, problem))
    steps = analysis.times(s["most_steps"], s["points"])
    path = filtered(K, problem.noisy, steps)
    quality, at = best_of(problem, path)
    assert at not in (0, len(steps) - 1)
    assert result.values["psnr"] == pytest.approx(quality, abs=1e-6)
    assert result.values["steps"] == steps[at]
    np.testing.assert_allclose(result.arrays["denoised"], path[at], atol=1e-9)
    np.testing.assert_allclose(result.arrays["path_psnr"][at], quality, atol=1e-6)

    unit_images = np.eye(side * side).reshape(side, side, side * side)
    A = filtered(K, unit_images, steps[at : at + 1])[0].reshape(side * side, -1)
    rows, cols = np.divmod(np.arange(side * side), side)
    apart = [np.abs(place[:, None] - place[None]) for place in (rows, cols)]
    outside = np.maximum(*(np.minimum(gap, side - gap) for gap in apart)) > inputs.RADIUS
    assert result.values["beyond"] == pytest.approx(np.sum(A[outside] ** 2) / np.sum(A**2), rel=1e-6)
    assert result.values["degrees_of_freedom"] == pytest.approx(np.trace(A), rel=1e-9)
    # what is left of a matrix is what it differs by from the mean over all shifts
    shift = ((rows[None] - rows[:, None]) % side) * side + (cols[None] - cols[:, None]) % side
    means = np.bincount(shift.ravel(), A.ravel()) / side**2
    left = np.sum((A - means[shift]) ** 2) / np.sum(A**2)
    assert result.values["not_stationary"] == pytest.approx(left, rel=1e-6, abs=1e-9)
    for n, (row, col) in enumerate(result.arrays["pixels"]):
        np.testing.assert_allclose(result.arrays["weights"][n].ravel(), A[row * side + col], atol=1e-9)
    assert result.values["gain"][0] == pytest.approx(A.sum() / side**2, rel=1e-9)
    profile = analysis.radial_profile(np.fft.fft2(means.reshape(side, side)).real, s["bins"])[1]
    np.testing.assert_allclose(result.values["gain"], profile[np.isfinite(profile)], atol=1e-9)
