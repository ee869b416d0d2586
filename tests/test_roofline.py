"""The engine's inner loops have a floor, which is tested here."""

import pytest

from ntkfast import Abs, Conv, LeakyReLU, Network, ReLU, autoencoder, roofline, vanilla_cnn


def test_more_layers_take_longer():
    small, large = (roofline(vanilla_cnn(depth, 3), threads=1) for depth in (1, 9))
    assert 0 < 2 * small < large < 1e-5


@pytest.mark.parametrize("options", [{"columns": 0}, {"channels": 8, "columns": 8}, {"threads": 2}])
def test_of_every_chain(options):
    assert roofline(Network([Conv(11), LeakyReLU(0.1), Conv(1, bias_var=0.5), Abs(), Conv(5)]), **options) > 0


def test_wrong_arguments_are_named():
    net = vanilla_cnn()
    with pytest.raises(TypeError, match="network must be a Network"):
        roofline([Conv(3), ReLU()])
    with pytest.raises(ValueError, match="network must be a chain"):
        roofline(autoencoder(1))
    for name, wrong in (("channels", 0), ("channels", 9), ("columns", -1), ("columns", 9), ("threads", 0)):
        with pytest.raises(ValueError, match=f"{name} must be at (least|most)"):
            roofline(net, **{name: wrong})
