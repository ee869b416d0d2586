"""The noisy image or noise as input: verdicts, and units computed again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from experiments import analysis, architectures, data
from experiments.analysis import RADIUS
from experiments.architectures import INPUTS
from experiments.experiment import Record, Tools
from experiments.inputs import EXPERIMENT
from experiments.inputs import measure as inputs
from experiments.scales import SCALES
from experiments.tests.again import best_of, filtered
from experiments.tests.toys import findings
from ntkfast.reference import kernel_matrix


def test_of_the_inputs() -> None:
    frequencies = np.linspace(0, 0.5, 6)

    def case(source: str, **changed: Any) -> Record:
        values: dict[str, Any] = {"psnr": 25.0, "noisy_psnr": 20.0, "beyond": 0.5, "not_stationary": 0.5}
        values |= {"steps": 10, "degrees_of_freedom": 5.0}
        gain = np.linspace(1, 0.4, 6)
        if source == "noise":
            values |= {"psnr": 22.0, "beyond": 0.01, "not_stationary": 0.0}
        values |= {key: value for key, value in changed.items() if key in values}
        gain = changed.get("gain", gain).tolist()
        values |= {"gain": gain, "frequencies": frequencies.tolist(), "gain_percentiles": [gain] * 3}
        return Record("", {"network": "vanilla", "input": source, "side": 16, "reduction": 8}, values, 1.0, dict)

    def verdicts(image: Record, noise: Record) -> list[str]:
        return [claim.verdict for claim in findings(EXPERIMENT, [image, noise])]

    assert verdicts(case("image"), case("noise")) == ["holds"] * 4
    local = case("image", beyond=0.05, not_stationary=0.05, psnr=21.0)
    assert verdicts(local, case("noise")) == ["does not hold", "holds", "does not hold", "does not hold"]
    for bad in (
        case("noise", not_stationary=0.05),
        case("noise", gain=np.full(6, 0.8)),  # no fall
        case("noise", gain=np.array([1, 0.9, 0.5, 0.7, 0.4, 0.3])),  # a rise on the way
    ):
        assert verdicts(case("image"), bad)[1] == "does not hold"


@pytest.mark.parametrize("source", INPUTS)
def test_inputs_unit_computed_again(source: str) -> None:
    unit = next(u for u in inputs.units(SCALES["tiny"]) if u.key == f"autoencoder/{source}")
    s = unit.settings
    result = inputs.run(s, Tools())
    side = s["side"]
    problem = data.problem(s["picture"], side, reduction=s["reduction"], centre=tuple(s["centre"]), gray=False)
    network = architectures.network("autoencoder", "circular")
    K = kernel_matrix(network, architectures.limit_input(source, problem), channel_axis=-1)
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
    outside = np.maximum(*(np.minimum(gap, side - gap) for gap in apart)) > RADIUS
    assert result.values["beyond"] == pytest.approx(np.sum(A[outside] ** 2) / np.sum(A**2), rel=1e-6)
    assert result.values["degrees_of_freedom"] == pytest.approx(np.trace(A), rel=1e-9)
    # A matrix less its mean over all shifts is left.
    shift = ((rows[None] - rows[:, None]) % side) * side + (cols[None] - cols[:, None]) % side
    means = np.bincount(shift.ravel(), A.ravel()) / side**2
    left = np.sum((A - means[shift]) ** 2) / np.sum(A**2)
    assert result.values["not_stationary"] == pytest.approx(left, rel=1e-6, abs=1e-9)
    for n, (row, col) in enumerate(result.arrays["pixels"]):
        np.testing.assert_allclose(result.arrays["weights"][n].ravel(), A[row * side + col], atol=1e-9)
    assert result.values["gain"][0] == pytest.approx(A.sum() / side**2, rel=1e-9)
    profile = analysis.radial_profile(np.fft.fft2(means.reshape(side, side)).real, s["bins"])[1]
    np.testing.assert_allclose(result.values["gain"], profile[np.isfinite(profile)], atol=1e-9)
