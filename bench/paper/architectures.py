"""The architectures of the paper's experiments that train finite networks, and those networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

import ntkfast as nf

if TYPE_CHECKING:
    import torch

# Two hidden layers at the least, so that there are hidden weights with c channels on both sides.  The autoencoder goes
# down once only and up by nearest neighbours: with the crops' few pixels a second level leaves next to no detail, which
# then takes a thousand steps to fit.
ARCHITECTURES: dict[str, nf.Network] = {
    "vanilla": nf.vanilla_cnn(depth=2, kernel_size=3),
    "autoencoder": nf.autoencoder(levels=1, kernel_size=3, upsample="nearest"),
    "unet": nf.unet(levels=2, kernel_size=3),
}

LABELS = {"vanilla": "vanilla CNN", "autoencoder": "autoencoder", "unet": "U-Net"}

# Of Okabe and Ito, which colour-blind readers can tell apart, and a marker each.
COLOURS = {"vanilla": "#0072B2", "autoencoder": "#D55E00", "unet": "#009E73"}
MARKERS = {"vanilla": "o", "autoencoder": "s", "unet": "^"}

DESCRIPTION = """\
- vanilla CNN: `vanilla_cnn(depth=2, kernel_size=3)`, two hidden layers at full resolution;
- autoencoder: `autoencoder(levels=1, kernel_size=3, upsample="nearest")`, one halving, no skip;
- U-Net: `unet(levels=2, kernel_size=3)`, two halvings, each with a skip."""


def finite_network(network: nf.Network, width: int, seed: int, device: str) -> torch.nn.Module:
    """Network of one input and one output channel in float32; a (width, seed) names the same one on every device.

    No two widths share random numbers, so that networks of all widths and seeds are independent.
    """
    import torch

    from ntkfast.finite import to_torch

    # Convolutions with the 10 bits of TF32, which torch takes for float32 on a card, would be off by 1e-3.
    torch.backends.cudnn.allow_tf32 = False
    return to_torch(network, width, 1, 1_000_000 * width + seed, torch.float32).to(device)
