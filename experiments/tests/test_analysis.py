"""Kernels and filters are measured on cases that are known."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse.linalg
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import analysis

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
        # Where outputs have the Jacobian J, rows (pixel, colour), their mean over the colours has (J_r + J_g + J_b)/3.
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
