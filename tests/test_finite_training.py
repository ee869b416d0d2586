"""Training of finite networks is exact where the network is linear, near the closed form where it is wide."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import ntkfast as nf
from finite_networks import distance
from finite_training import effective, linear, output, train
from images import noise
from ntkfast.activations import ReLU
from ntkfast.finite import Record, empirical_ntk, to_torch
from ntkfast.network import Conv, Network, unet, vanilla_cnn
from refusals import refused
from strategies import convs, paddings

pytestmark = pytest.mark.usefixtures("one_torch_thread")


TWO_LAYERS = Network([Conv(3, bias_var=0.5), ReLU(), Conv(1, weight_var=1, bias_var=0.3)])


@pytest.mark.parametrize("out_channels", [1, 3])
def test_gradient_descent_is_the_closed_form(out_channels):
    module, x, y, K = linear(out_channels)
    steps = [0, 1, 2, 10, 100, 500]
    z, info = nf.gradient_descent(K, y, steps, tolerance=1e-13, return_info=True)
    training = train(module, x, y, steps=500, learning_rate=info.learning_rate, record=Record(steps=steps))
    assert training.steps == tuple(steps)
    assert training.outputs.shape == (6, *y.shape)
    assert not training.outputs[0].any()
    assert np.abs(training.outputs - z).max() <= 1e-12


@settings(deadline=None, derandomize=True, max_examples=20)
@given(convs(trainable=True), paddings(), st.integers(1, 3), st.floats(0.1, 1.9))
def test_gradient_descent_is_the_closed_form_for_any_convolution_and_rate(conv, padding, out_channels, rate):
    module, x, y, K = linear(out_channels, conv, padding)
    values, vectors = np.linalg.eigh(K.dense())
    eta = rate / values[-1]
    training = train(module, x, y, steps=12, learning_rate=eta, record=Record(steps=range(13)))
    for t, z in enumerate(training.outputs):
        expected = vectors @ ((1 - (1 - eta * values) ** t) * (vectors.T @ y.ravel()))
        assert np.abs(z.ravel() - expected).max() <= 1e-12


def test_momentum_is_the_heavy_ball():
    # The iteration is v_{t+1} = 0.9 v_t + J^T (z_t - y), q_{t+1} = q_t - eta v_{t+1}; with u = J v
    # it is u_{t+1} = 0.9 u_t + Theta (z_t - y), z_{t+1} = z_t - eta u_{t+1}.
    module, x, y, K = linear()
    theta = K.dense()
    eta = 0.5 / np.linalg.eigvalsh(theta)[-1]
    training = train(module, x, y, optimizer="momentum", steps=30, learning_rate=eta, record=Record(steps=range(31)))
    z, u = np.zeros(20), np.zeros(20)
    for recorded in training.outputs:
        assert np.abs(recorded.ravel() - z).max() <= 1e-12
        u = 0.9 * u + theta @ (z - y.ravel())
        z = z - eta * u


def test_without_centring_the_path_starts_at_the_random_output():
    module, x, y, K = linear()
    f = output(module, x)
    training = train(
        module, x, y, steps=20, learning_rate=0.1 / K.shape[0], record=Record(steps=[0, 20]), centred=False
    )
    assert np.array_equal(training.outputs[0], f)
    # The error y - z contracts as it does from zero.
    expected = y - (y - f) + nf.gradient_descent(K, y - f, 20, 0.1 / K.shape[0], tolerance=1e-13)
    assert np.abs(training.outputs[1] - expected).max() <= 1e-12
    assert np.array_equal(training.outputs[1], output(module, x))


def test_the_distance_to_the_closed_form_falls_as_one_over_the_root_of_the_width():
    network, x, y = vanilla_cnn(1, 3), noise(5, 6, 1, seed=4), noise(5, 6, 2, seed=5)
    K = nf.NTK(network, x, channel_axis=-1, dtype="float64")
    eta = 0.5 / np.linalg.eigvalsh(K.dense())[-1]
    expected = nf.gradient_descent(K, y, 60, eta)
    widths, errors = (16, 64, 256), []
    for width in widths:
        modules = [to_torch(network, width, 1, seed, out_channels=2) for seed in range(12)]
        paths = [train(m, x, y, steps=60, learning_rate=eta, record=Record(steps=[60])).outputs[0] for m in modules]
        errors.append(np.sqrt(np.mean([distance(path, expected) ** 2 for path in paths])))
    slope = np.polyfit(np.log(widths), np.log(errors), 1)[0]
    assert -0.65 <= slope <= -0.35
    assert errors[-1] < 0.15


@pytest.mark.parametrize(("optimizer", "rate", "l2", "linf"), [("gd", 0.01, -0.5, -1.5), ("adam", 0.3, 0.0, -1.0)])
def test_weights_between_hidden_layers_move_by_these_powers_of_the_width(optimizer, rate, l2, linf):
    x, widths, norms = noise(6, 6, 1, seed=20), np.array([16, 48, 144]), ("l2", "linf")
    changes = []
    for width in widths:
        modules = [to_torch(vanilla_cnn(2, 3), int(width), 1, seed) for seed in range(6)]
        runs = [train(m, x, x, optimizer=optimizer, steps=5, learning_rate=rate) for m in modules]
        changes.append([np.mean([getattr(run, f"weight_change_{n}")["2"][-1] for run in runs]) for n in norms])
    if optimizer == "gd":
        # The largest of c^2 products of two normal variables, of which there are c each, grows as log c.
        changes = changes / np.column_stack([np.ones(3), np.log(widths)])
    slopes = np.polyfit(np.log(widths), np.log(changes), 1)[0]
    assert np.abs(slopes - (l2, linf)).max() < 0.1


def standard(module, width):
    """Return TWO_LAYERS as plain torch has it, with the effective weights and biases of a module as its parameters."""
    layers = torch.nn.Conv2d(2, width, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(width, 1, 1)
    plain = torch.nn.Sequential(*layers).double()
    with torch.no_grad():
        for n in (0, 2):
            plain[n].weight.copy_(module[n].weight_scale * module[n].weight)
            plain[n].bias.copy_(module[n].bias_scale * module[n].bias)
    return plain


def adam_case(width):
    """Return module, the same in the standard parametrisation, input and target."""
    module = to_torch(TWO_LAYERS, width, 2, rng=2)
    return module, standard(module, width), noise(6, 5, 2, seed=6), 10 * noise(6, 5, 1, seed=7)


@pytest.mark.parametrize("width", [2, 7])
def test_the_first_step_of_adam_moves_each_effective_weight_by_the_rate_over_the_width(width):
    # In the first step m = g and v = g^2 after its corrections, so each weight moves by the rate.
    module, start, x, y = adam_case(width)
    training = train(module, x, y, optimizer="adam", steps=1, learning_rate=0.03)
    assert training.steps == (0, 1)
    for before, after in zip(start.parameters(), standard(module, width).parameters(), strict=True):
        assert torch.allclose((after - before).abs(), torch.full_like(before, 0.03 / width), rtol=1e-6, atol=0)
    for change in training.weight_change_linf.values():
        assert math.isclose(change[1], 0.03 / width, rel_tol=1e-6)


def test_adam_is_adam_on_the_effective_weights():
    width, rate, grid = 4, 0.1, range(0, 41, 8)
    module, start, x, y = adam_case(width)
    ours = train(module, x, y, optimizer="adam", steps=40, learning_rate=rate, record=Record(steps=grid))

    # This is torch's own, on the loss as it is written.
    plain = copy.deepcopy(start)
    adam = torch.optim.Adam(plain.parameters(), lr=rate / width)
    batch, target = (torch.from_numpy(a).permute(2, 0, 1)[None] for a in (x, y))
    for step in range(41):
        z = plain(batch) - start(batch).detach()
        if step in grid:
            expected = z.detach().numpy()[0, 0][..., None]
            assert np.abs(ours.outputs[grid.index(step)] - expected).max() <= 1e-10
        adam.zero_grad()
        (0.5 * (z - target).square().sum()).backward()
        adam.step()

    # A module without NTKConv2d is trained at the rate as it is.
    theirs = train(start, x, y, optimizer="adam", steps=40, learning_rate=rate / width, record=Record(steps=grid))
    assert np.abs(ours.outputs - theirs.outputs).max() <= 1e-10
    for name in ("0", "2"):
        assert np.allclose(ours.weight_change_l2[name], theirs.weight_change_l2[name], rtol=1e-9, atol=0)
        assert math.isclose(ours.weight_linf[name], theirs.weight_linf[name], rel_tol=1e-14)


@pytest.mark.parametrize("optimizer", ["gd", "momentum", "adam"])
@pytest.mark.parametrize("out_channels", [1, 2])
def test_records_are_those_of_the_module_at_these_steps(optimizer, out_channels):
    network = unet(1)
    x, y, clean = noise(4, 6, 2, seed=10), noise(4, 6, out_channels, seed=11), noise(4, 6, out_channels, seed=12)
    probe = np.random.default_rng(13).standard_normal((24 * out_channels, 2))
    rate = 0.1 if optimizer == "adam" else 2e-3
    start = to_torch(network, 5, 2, rng=4, out_channels=out_channels)
    settings = {"optimizer": optimizer, "learning_rate": rate}
    module = copy.deepcopy(start)
    record = Record(steps=[9, 0, 4, 4], probe=probe, clean=clean, data_range=3.0)
    training = train(module, x, y, steps=9, record=record, **settings)
    assert training.steps == (0, 4, 9)
    assert training.seconds > 0
    weights = effective(start)
    assert set(training.weight_l2) == set(training.weight_change_linf) == set(weights)
    for name, weight in weights.items():
        assert math.isclose(training.weight_l2[name], np.linalg.norm(weight), rel_tol=1e-13)
        assert math.isclose(training.weight_linf[name], np.abs(weight).max(), rel_tol=1e-13)
    for n, step in enumerate(training.steps):
        there = copy.deepcopy(start)
        train(there, x, y, steps=step, **settings)
        z = output(there, x) - output(start, x)
        assert np.array_equal(training.outputs[n], z)
        assert math.isclose(training.loss[n], 0.5 * np.sum((z - y) ** 2), rel_tol=1e-13)
        assert math.isclose(training.psnr[n], 10 * math.log10(9 / np.mean((z - clean) ** 2)), rel_tol=1e-13)
        assert np.array_equal(training.kernel_action[n], empirical_ntk(there, x, channel_axis=-1).matmat(probe))
        for name, weight in effective(there).items():
            change = weight - weights[name]
            assert np.isclose(training.weight_change_l2[name][n], np.linalg.norm(change), rtol=1e-10, atol=0)
            assert np.isclose(training.weight_change_linf[name][n], np.abs(change).max(), rtol=1e-10, atol=0)
    # Training is in place: the module is now the one after the last step.
    for p, q in zip(module.parameters(), there.parameters(), strict=True):
        assert torch.equal(p, q)
        assert p.grad is None


def test_frozen_convolutions_stay():
    network = Network([Conv(3, trainable=False), ReLU(), Conv(3), ReLU(), Conv(1)])
    module = to_torch(network, 4, 1)
    training = train(module, noise(4, 4, 1, 14), noise(4, 4, 1, 15), optimizer="adam", steps=5, learning_rate=0.1)
    assert not training.weight_change_l2["0"].any()
    assert training.weight_change_l2["2"][-1] > 0
    assert training.weight_l2["0"] > 0


def test_single_precision_follows_double_precision():
    x, y = noise(6, 6, 1, seed=16), noise(6, 6, 1, seed=17)
    single, double = (
        train(to_torch(unet(1), 8, 1, dtype=dtype), x, y, steps=30, learning_rate=1e-3)
        for dtype in (torch.float32, torch.float64)
    )
    assert single.outputs.dtype == np.float32
    assert double.outputs.dtype == np.float64
    assert not single.outputs[0].any()
    assert distance(single.outputs, double.outputs) < 1e-5


@pytest.mark.parametrize(
    ("steps", "expected"), [(0, {0}), (1, {0, 1}), (5, {0, 1, 2, 3, 4, 5}), (1000, {0, 1, 2, 1000})]
)
def test_the_default_record_is_a_geometric_grid_with_both_ends(steps, expected):
    module, x, y, _ = linear()
    recorded = train(module, x, y, steps=steps, learning_rate=1e-3).steps
    assert expected <= set(recorded)
    assert (recorded[0], recorded[-1]) == (0, steps)
    assert list(recorded) == sorted(set(recorded))
    assert len(recorded) <= 25
    ratios = np.divide(recorded[2:], recorded[1:-1])
    assert (ratios <= 2).all()


def test_images_with_channels_on_any_axis_or_none_and_of_any_type():
    results = []
    for axis, probe in ((None, np.ones(20)), (-1, np.ones((20, 1))), (0, np.ones(20)), (1, np.ones(20))):
        module = to_torch(vanilla_cnn(1, 3), 4, 1, rng=1)
        x, y = noise(5, 4, 1, seed=2)[..., 0], np.round(noise(5, 4, 1, seed=3)[..., 0]).astype(int)
        if axis is not None:
            x, y = np.expand_dims(x, axis), np.expand_dims(y, axis)
        record = Record(steps=[3], probe=probe, clean=y, data_range=1)
        results.append(train(module, x, y, channel_axis=axis, steps=3, learning_rate=0.01, record=record))
        assert results[-1].outputs.shape == (1, *y.shape)
        assert results[-1].kernel_action.shape == (1, 20, 1)
    for result in results[1:]:
        assert np.array_equal(result.outputs.ravel(), results[0].outputs.ravel())
        assert np.array_equal(result.kernel_action, results[0].kernel_action)
        assert result.psnr == results[0].psnr


def test_colours_come_back_on_the_axis_that_they_were_given_on():
    paths = []
    for axis in (-1, 0, 1):
        module = to_torch(vanilla_cnn(1, 3), 4, 3, rng=1, out_channels=3)
        y = np.moveaxis(noise(5, 4, 3, seed=3), -1, axis)
        outputs = train(module, y, torch.from_numpy(y), channel_axis=axis, steps=3, learning_rate=0.01).outputs
        assert outputs.shape[1:] == y.shape
        paths.append(np.moveaxis(outputs, axis if axis < 0 else axis + 1, -1))
    assert np.array_equal(paths[0], paths[1])
    assert np.array_equal(paths[0], paths[2])


def test_a_perfect_result_has_infinite_psnr():
    module, x, y, _ = linear()
    record = Record(clean=np.zeros_like(y), data_range=1)
    assert train(module, x, y, steps=0, learning_rate=1, record=record).psnr == [math.inf]


def test_without_clean_and_probe_there_is_no_psnr_and_no_kernel_action():
    module, x, y, _ = linear()
    training = train(module, x, y, steps=1, learning_rate=0.01)
    assert training.psnr is None
    assert training.kernel_action is None


def test_any_torch_module_can_be_trained():
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 3, padding=1), torch.nn.Tanh(), torch.nn.Conv2d(3, 1, 1))
    x, y = noise(4, 5, 1, seed=18), noise(4, 5, 1, seed=19)
    before = module[0].weight.detach().clone()
    training = train(module, x, y, optimizer="adam", steps=1, learning_rate=0.01)
    assert np.allclose((module[0].weight - before).abs().detach(), 0.01, rtol=1e-3)
    assert math.isclose(training.weight_l2["0"], before.norm(), rel_tol=1e-6)


def test_layers_with_running_statistics_are_trained_in_training_mode():
    layers = (
        torch.nn.Conv2d(1, 3, 3, padding=1),
        torch.nn.BatchNorm2d(3),
        torch.nn.Dropout(0.1),
        torch.nn.Conv2d(3, 1, 1),
    )
    module, x = torch.nn.Sequential(*layers), noise(4, 5, 1, seed=18)
    train(module, x, x, steps=3, learning_rate=1e-3)
    assert module[1].num_batches_tracked == 4
    before = [p.clone() for p in module.parameters()]
    with refused(ValueError, "module must have one Jacobian", "submodule '1'", "call module.eval()"):
        train(module, x, x, steps=3, learning_rate=1e-3, record=Record(steps=[3], probe=np.ones(20)))
    assert all(torch.equal(p, q) for p, q in zip(module.parameters(), before, strict=True))
    module.eval()
    record = Record(probe=np.ones(20))
    assert train(module, x, x, steps=3, learning_rate=1e-3, record=record).kernel_action.shape == (4, 20, 1)


def test_a_first_layer_in_place_sees_the_same_input_in_each_step():
    x, outputs = noise(4, 5, 1, seed=18), []
    for inplace in (True, False):
        torch.manual_seed(0)
        convolution = torch.nn.Conv2d(1, 1, 3, padding=1).double()
        module = torch.nn.Sequential(torch.nn.LeakyReLU(0.1, inplace), convolution)
        outputs.append(train(module, x, x, steps=4, learning_rate=0.01).outputs)
    assert np.array_equal(*outputs)


def test_it_trains_where_gradients_are_disabled_and_leaves_them_so():
    module, x, y, _ = linear()
    with torch.no_grad():
        training = train(module, x, y, steps=2, learning_rate=0.01)
        assert not torch.is_grad_enabled()
    assert training.loss[-1] < training.loss[0]


def test_progress_rises_to_one_and_can_stop():
    module, x, y, _ = linear()
    seen = []
    train(module, x, y, steps=4, learning_rate=0.01, progress=seen.append)
    assert seen == [0.25, 0.5, 0.75, 1.0]

    def stop(fraction):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(module, x, y, steps=4, learning_rate=0.01, progress=stop)
    assert all(p.grad is None for p in module.parameters())


def test_stop_iteration_from_progress_ends_the_training_with_what_was_recorded():
    whole, part = (linear()[0] for _ in range(2))
    _, x, y, _ = linear()
    record = Record(steps=range(10), probe=np.ones(20), clean=y, data_range=1.0)
    expected = train(whole, x, y, steps=5, learning_rate=0.01)

    def stop(fraction):
        if fraction >= 0.5:
            raise StopIteration

    training = train(part, x, y, steps=10, learning_rate=0.01, record=record, progress=stop)
    assert training.steps == tuple(range(5))
    assert {len(training.outputs), len(training.loss), len(training.psnr), len(training.kernel_action)} == {5}
    assert {len(changes) for changes in training.weight_change_l2.values()} == {5}
    assert all(p.grad is None for p in part.parameters())
    for p, q in zip(part.parameters(), whole.parameters(), strict=True):
        assert torch.equal(p, q)  # five steps were taken
    assert expected.steps == (0, 1, 2, 3, 4, 5)
