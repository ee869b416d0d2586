"""Weight changes: verdicts, and units computed again."""

import dataclasses

import numpy as np
import pytest

from experiments import analysis
from experiments.architectures import ARCHITECTURES, finite_network
from experiments.experiment import FAILS, HOLDS, NOT_RUN, Record, Tools
from experiments.follow import measure as follow
from experiments.scales import WeightsSizes
from experiments.tests.toys import TINY, findings
from experiments.weights import EXPERIMENT, summary
from experiments.weights import measure as weights
from experiments.weights.claims import EXPONENTS
from experiments.weights.text import by_layer
from ntkfast.reference import kernel_matrix

torch = pytest.importorskip("torch")


def weights_records(slopes, *, reached=True):
    """Changes that are exact powers of the width: slopes by (optimizer, norm), for both conventions."""
    records = []
    for name in ARCHITECTURES:
        for optimizer in weights.OPTIMIZERS:
            for width in (16, 64, 256):
                change = {
                    norm: {kind: width ** slopes[optimizer, norm] for kind in summary.KINDS} for norm in weights.NORMS
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
    assert [c.verdict for c in findings(EXPERIMENT, weights_records(EXPONENTS))] == [HOLDS] * 5
    others = {("gd", "l2"): 0.0, ("gd", "linf"): -1.2, ("adam", "l2"): -0.5, ("adam", "linf"): -1.1}
    verdicts = [c.verdict for c in findings(EXPERIMENT, weights_records(others))]
    assert verdicts == [FAILS, FAILS, FAILS, HOLDS, FAILS]
    remarks = [c.remark for c in findings(EXPERIMENT, weights_records(EXPONENTS))]
    assert "vanilla CNN -1.50" in remarks[1]
    assert "after 4 steps: vanilla CNN 0.00 ± 0.00" in remarks[2]
    missed = findings(EXPERIMENT, weights_records(EXPONENTS, reached=False))
    assert [c.verdict for c in missed] == [HOLDS] * 4 + [NOT_RUN]
    assert [len(c.checks) for c in missed] == [3, 3, 6, 6, 0]


@pytest.mark.parametrize(
    ("loss", "want"),
    [([4.0, 2.0, 1.0], 1.5), ([1.0, 0.5], 0.0), ([4.0, 1.5], 1.0), ([4.0, 2.0], None), ([2.0, 1.0, 3.0, 1.0], 0.5)],
)
def test_crossing(loss, want):
    assert analysis.crossing(loss, 1.5) == want


def test_norms_of_several_layers():
    assert summary.combined([3.0, 4.0], "l2") == 5.0
    assert summary.combined([3.0, 4.0], "linf") == 4.0
    assert weights.between(np.array([0.0, 2.0, 6.0]), 1.25) == 3.0
    assert summary.kinds(["0", "2", "4", "6"]) == {"first": ["0"], "hidden": ["2", "4"], "last": ["6"]}


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
        assert summary.changes_of(kept, "steps", norm, "hidden") == ([8], [pytest.approx(want, rel=1e-4)])


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
    records = weights_records(EXPONENTS)
    for record in records:
        for norm, changes in record.values["change"]["loss"].items():
            changes["second"] = record.settings["width"] ** (-0.75 if norm == "l2" else -1.75)
            changes["last"] = changes.pop("last")
    found = EXPERIMENT.summary(records)
    text = by_layer(found)
    assert "| U-Net, 3 of 4 (hidden) | -0.75 ± 0.00 | -1.75 ± 0.00 | -0.75 ± 0.00 | -1.75 ± 0.00 |" in text
    assert "| U-Net, 4 of 4 (last) | -0.50 ± 0.00 | -1.50 ± 0.00 | 0.00 ± 0.00 | -1.00 ± 0.00 |" in text
    assert text.count("(hidden)") == 6
    assert text in EXPERIMENT.text(found)
    assert EXPERIMENT.text(found).count("| Adam, U-Net | 16 |") == 1
    assert "after 16 and after 64 steps, and at the same loss" in findings(EXPERIMENT, records)[2].statement
