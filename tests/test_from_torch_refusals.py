"""These test what from_torch refuses, and what it says then."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import nn

from ntkfast import (
    Conv,
    Network,
    ReLU,
    Skip,
    from_torch,
    vanilla_cnn,
)
from refusals import refused
from torch_modules import Function, conv, described

pytestmark = pytest.mark.usefixtures("one_torch_thread")


@pytest.mark.parametrize(
    ("layer", "parts"),
    [
        (nn.MaxPool2d(2), ("(MaxPool2d) has no closed form", "AvgPool2d(2)", "stride=2")),
        (nn.AdaptiveAvgPool2d(2), ("(AdaptiveAvgPool2d)", "AvgPool2d(2)")),
        (nn.BatchNorm2d(4), ("(BatchNorm2d)", "remove it", "cannot be folded")),
        (nn.GroupNorm(2, 4), ("(GroupNorm)", "remove it")),
        (nn.InstanceNorm2d(4), ("(InstanceNorm2d)", "remove it")),
        (nn.Dropout(0.5), ("(Dropout) is random while training", "module.eval()")),
        (nn.Linear(4, 4), ("(Linear)", "Conv2d with kernel_size=1")),
        (nn.ConvTranspose2d(4, 4, 2, stride=2), ("(ConvTranspose2d)", "Upsample(scale_factor=2)")),
        (nn.PixelShuffle(2), ("(PixelShuffle)", "Upsample(scale_factor=2)")),
        (nn.Tanh(), ("(Tanh) has no closed form", "torch.erf")),
        (nn.Sigmoid(), ("(Sigmoid) has no closed form", "torch.erf")),
        (nn.SiLU(), ("(SiLU) has no closed form", "GELU")),
        (nn.PReLU(), ("(PReLU) has a slope that is trained", "LeakyReLU")),
        (nn.GELU("tanh"), ("(GELU) approximate='tanh'", "approximate='none'")),
        (nn.Softmax2d(), ("(Softmax2d) has no counterpart", "use Conv2d")),
        (nn.ReflectionPad2d(1), ("(ReflectionPad2d)", "padding of Conv2d")),
        (conv(4, 4, padding_mode="reflect"), ("padding_mode 'zeros' or 'circular', got 'reflect'",)),
        (conv(4, 4, 4), ("odd square kernel, got kernel_size=(4, 4)",)),
        (nn.Conv2d(4, 4, (3, 5), padding=(1, 2)), ("odd square kernel, got kernel_size=(3, 5)",)),
        (conv(4, 4, dilation=2, padding=2), ("groups=1 and dilation=1", "dilation=(2, 2)", "larger kernel")),
        (conv(4, 4, groups=2), ("groups=1 and dilation=1", "groups=2")),
        (conv(4, 4, padding=0), ("must keep the size", "padding=1, got padding=(0, 0)")),
        (conv(4, 4, stride=3), ("stride 1 or 2, got stride=(3, 3)",)),
        (conv(4, 4, stride=(1, 2)), ("stride 1 or 2, got stride=(1, 2)",)),
        (nn.AvgPool2d(3), ("2, 4, 8, ... pixels", "kernel_size=3")),
        (nn.AvgPool2d(2, stride=1), ("stride = kernel_size", "stride=1")),
        (nn.AvgPool2d(2, padding=1), ("padding=1",)),
        (nn.Upsample(scale_factor=3), ("'nearest' and scale_factor=2, 4, 8", "scale_factor=3")),
        (nn.Upsample(scale_factor=4, mode="bilinear"), ("mode='bilinear' and scale_factor=2", "scale_factor=4")),
        (nn.Upsample(scale_factor=2, mode="bicubic"), ("mode='bicubic'",)),
        (nn.Upsample(size=8), ("no size", "scale_factor=2")),
        (nn.UpsamplingBilinear2d(scale_factor=2), ("align_corners=False",)),
    ],
)
def test_layers_without_counterpart_are_refused_by_name_and_place(layer, parts):
    body = nn.Sequential()
    body.add_module("mid", layer)
    module = nn.Sequential()
    module.add_module("a", conv(2, 4))
    module.add_module("b", body)
    module.add_module("c", conv(4, 1))
    with refused(ValueError, "ntkfast cannot describe: 'b.mid'", *parts):
        from_torch(module, init="he")


@pytest.mark.parametrize(
    ("function", "parts"),
    [
        (torch.tanh, ("'tanh' (call function tanh) has no closed form", "torch.erf")),
        (lambda x: x.sigmoid(), ("'sigmoid' (call method sigmoid)", "torch.erf")),
        (lambda x: F.max_pool2d(x, 2), ("(call function max_pool2d)", "AvgPool2d(2)")),
        (lambda x: F.dropout(x, 0.5), ("is random while training",)),
        (lambda x: F.interpolate(x, size=x.shape[-2:]), ("no size", "scale_factor=2")),
        (lambda x: 2 * x, ("(call function mul)", "weight_var by init")),
        (lambda x: x - x, ("(call function sub)", "use +")),
        (lambda x: x + 1, ("sum of two features",)),
        (lambda x: torch.add(x, x, alpha=2), ("sum of two features",)),
        (lambda x: torch.cat([x, x], 2), ("along the channels, dim=1, got dim=2",)),
        (lambda x: torch.cat([x, x]), ("along the channels, dim=1, got dim=0",)),
        (lambda x: x[:, :2], ("(call function getitem) has no counterpart",)),
        (lambda x: F.leaky_relu(x, x.mean()), ("must have constants for its arguments",)),
        (lambda x: F.conv2d(x, torch.ones(4, 4, 1, 1)), ("torch.nn.Conv2d module",)),
    ],
)
def test_functions_without_counterpart_are_refused_by_name(function, parts):
    with refused(ValueError, "ntkfast cannot describe: ", *parts):
        described(lambda m, x: m.b(function(m.a(x))), a=conv(1, 4), b=conv(4, 1))


def test_every_problem_is_named_at_once():
    module = nn.Sequential(conv(1, 4), nn.BatchNorm2d(4), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(4, 1, 2))
    with refused(ValueError, "'1' (BatchNorm2d)", "'2' (Tanh)", "'3' (MaxPool2d)", "'4' (Conv2d)"):
        from_torch(module, init="he")


def test_functions_are_placed_in_their_block():
    block = Function(lambda m, x: torch.tanh(m.a(x)), a=conv(1, 4))
    with refused(ValueError, "'tanh' (call function tanh) in 'enc.0'"):
        described(lambda m, x: m.b(m.enc(x)), enc=nn.Sequential(block), b=conv(4, 1))


def test_mixed_padding_is_refused():
    with refused(ValueError, "one padding_mode", "'zeros' at '0' (Conv2d) and 'circular' at '2' (Conv2d)"):
        from_torch(nn.Sequential(conv(1, 4), nn.ReLU(), conv(4, 1, padding_mode="circular")), init="he")
    # A 1x1 kernel does not look outside.
    network = from_torch(nn.Sequential(conv(1, 4, 1), conv(4, 1, padding_mode="circular")), init="he")
    assert network.padding == "circular"


def test_circular_padding_with_bilinear_upsampling_is_refused():
    layers = [conv(1, 4, padding_mode="circular"), nn.AvgPool2d(2), nn.Upsample(scale_factor=2, mode="bilinear")]
    with refused(
        ValueError, "circular padding ('0' (Conv2d))", "bilinear upsampling ('2' (Upsample))", "mode='nearest'"
    ):
        from_torch(nn.Sequential(*layers, conv(4, 1, 1)), init="he")


def test_paths_that_are_not_series_parallel_are_refused_by_place():
    # Both sums take b(h); a(h) and c(h) go into one each.
    with refused(ValueError, "series-parallel", "'b' (Conv2d)"):
        described(
            lambda m, x: m.end(torch.cat([m.d(m.a(h := m.e(x)) + (b := m.b(h))), b + m.c(h)], 1)),
            **{name: conv(4, 4) for name in "abcd"},
            e=conv(1, 4),
            end=conv(8, 1),
        )


def test_weights_that_are_computed_are_refused():
    for norm in (nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm):
        with refused(ValueError, "'0' (ParametrizedConv2d)"):
            from_torch(norm(conv(1, 1)), init="he")
    with refused(ValueError, "'0' (Conv2d) must have its weight as a parameter", "spectral_norm"):
        from_torch(nn.utils.spectral_norm(conv(1, 1)), init="he")


def test_weights_that_are_used_twice_are_refused():
    with refused(ValueError, "use the weights of every Conv2d once", "'a' (Conv2d) after 'a' (Conv2d)"):
        described(lambda m, x: m.a(F.relu(m.a(x))), a=conv(1, 1))
    a, b = conv(1, 1), conv(1, 1)
    b.weight = a.weight
    with refused(ValueError, "use the weights of every Conv2d once", "'2' (Conv2d) after '0' (Conv2d)"):
        from_torch(nn.Sequential(a, nn.ReLU(), b), init="he")


@pytest.mark.parametrize("step", [nn.ReLU(inplace=True), F.relu_, lambda x: x.relu_(), lambda x: x.add_(x)])
def test_features_that_are_changed_in_place_and_used_afterwards_are_refused(step):
    children = {"a": conv(1, 4), "b": conv(4, 4), "end": conv(4, 1)}
    children |= {"step": step} if isinstance(step, nn.Module) else {}
    apply = (lambda m, h: m.step(h)) if isinstance(step, nn.Module) else (lambda m, h: step(h))
    with refused(ValueError, "change features in place", "use inplace=False"):
        described(lambda m, x: m.end(m.b(apply(m, h := m.a(x))) + h), **children)

    def dropped(m, x):
        h = m.a(x)
        apply(m, h)
        return m.end(m.b(h))

    with refused(ValueError, "change features in place", "use inplace=False"):
        described(dropped, **children)


def test_features_may_be_changed_in_place_after_their_other_uses():
    def forward(m, x):
        h = m.a(x)
        b = m.b(h)
        return m.end(torch.cat([F.relu(h, inplace=True), b], 1))

    network = described(forward, a=conv(1, 4), b=conv(4, 4), end=conv(8, 1))
    assert network == Network([Conv(3), Skip([Conv(3)], shortcut=[ReLU()]), Conv(3)])


def test_rules_of_the_network_are_told_with_its_layers():
    # These are two uncentred summands.
    with refused(ValueError, "no kernel in closed form", "[Conv(3), ReLU(), Skip([Conv(3), ReLU()]", "mean zero"):
        described(
            lambda m, x: m.end((h := F.relu(m.a(x))) + F.relu(m.b(h))), a=conv(1, 4), b=conv(4, 4), end=conv(4, 1)
        )
    with refused(ValueError, "no kernel in closed form", "must end with a Conv"):
        from_torch(nn.Sequential(conv(1, 4), nn.ReLU()), init="he")
    with refused(ValueError, "no kernel in closed form", "the image"):
        described(lambda m, x: m.end(x + m.a(x)), a=conv(4, 4), end=conv(4, 1))


def test_modules_that_do_not_fit_together_are_refused():
    with refused(ValueError, "must return 1 channel, or as many as it takes (3), got 4 from '0' (Conv2d)"):
        from_torch(conv(3, 4), init="he")
    with refused(ValueError, "must give '1' (Conv2d) 5 channels, as it takes, got 4"):
        from_torch(nn.Sequential(conv(3, 4), conv(5, 1)), init="he")
    with refused(ValueError, "must add features of as many channels, got [4, 1] at 'add'"):
        described(lambda m, x: m.end(m.a(x) + m.b(x)), a=conv(1, 4), b=conv(1, 1), end=conv(4, 1))
    with refused(ValueError, "must apply a Conv2d to its input"):
        from_torch(nn.AvgPool2d(2), init="he")


def test_modules_that_cannot_be_traced_are_refused():
    with refused(ValueError, "traceable by torch.fx", "without branches on values", "TraceError"):
        described(lambda m, x: m.a(x) if x.sum() > 0 else x, a=conv(1, 1))
    with refused(ValueError, "must return one tensor"):
        described(lambda m, x: (m.a(x), x), a=conv(1, 1))

    class Two(nn.Module):
        def forward(self, x, y):
            return x + y

    with refused(ValueError, "from one input, got x, y"):
        from_torch(Two(), init="he")


def test_weight_and_bias_are_both_trained_or_none():
    module = nn.Conv2d(1, 1, 3, padding=1)
    module.bias.requires_grad_(False)
    with refused(ValueError, "'0' (Conv2d) must train both weight and bias or none", "True of the weight and False"):
        from_torch(module, init="torch")
    assert from_torch(module, init="he") == Network([Conv(3)])


@pytest.mark.parametrize("value", [None, vanilla_cnn(), nn.ReLU])
def test_what_is_no_module_is_refused(value):
    with refused(TypeError, "module must be a torch.nn.Module", f"got {value!r}"):
        from_torch(value, init="he")


def test_init_is_required_and_one_of_the_known():
    module = conv(1, 1)
    with refused(TypeError, "init"):
        from_torch(module)
    with refused(TypeError, "init must be one of ('he', 'lecun', 'torch') or a callable", "got 2.0"):
        from_torch(module, init=2.0)
    with refused(ValueError, "init must be one of ('he', 'lecun', 'torch') or a callable", "got 'xavier'"):
        from_torch(module, init="xavier")
    with refused(TypeError, "init must return (weight_var, bias_var), got 2.0 for '0'"):
        from_torch(module, init=lambda conv, name: 2.0)
    with refused(ValueError, "'0' (Conv2d)", "from init", "weight_var must be positive, got -1.0"):
        from_torch(module, init=lambda conv, name: (-1, 0))


def test_importing_ntkfast_does_not_import_torch():
    code = (
        "import sys; from ntkfast import *; import ntkfast; print('torch' in sys.modules, 'from_torch' in dir(ntkfast))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
