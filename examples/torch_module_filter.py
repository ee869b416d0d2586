"""Make a filter of a PyTorch module that you wrote yourself, in the limit of infinite width.

    python examples/torch_module_filter.py [SIZE]

``from_torch`` reads the architecture of a module: its weights and its numbers of channels do not matter.  ``NTK`` is
the kernel of such networks, and gradient descent on a noisy picture is a filter made of it.  The command prints what
was read, and the PSNR over the steps.  PyTorch is needed.

The picture is a crop of scikit-image's *camera* (public domain), SIZE x SIZE pixels, 64 by default; values are 0 to 1.
"""

import sys

import numpy as np
import skimage.data
import torch
from skimage.metrics import peak_signal_noise_ratio

import ntkfast as nf


class Denoiser(torch.nn.Module):
    """This has a hidden layer at full and one at half the resolution, joined by a skip."""

    def __init__(self, channels: int = 8) -> None:
        super().__init__()
        self.first = torch.nn.Conv2d(1, channels, 5, padding=2, bias=False)
        self.coarse = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.last = torch.nn.Conv2d(2 * channels, 1, 1, bias=False)
        self.down = torch.nn.AvgPool2d(2)
        self.up = torch.nn.Upsample(scale_factor=2, mode="bilinear")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = torch.relu(self.first(x))
        coarse = torch.relu(self.coarse(self.down(fine)))
        return self.last(torch.cat([fine, self.up(coarse)], dim=1))


size = int(sys.argv[1]) if len(sys.argv) > 1 else 64
clean = skimage.data.camera()[80 : 80 + size, 200 : 200 + size] / 255
noisy = clean + np.random.default_rng(0).normal(0, 25 / 255, clean.shape)
y = noisy - noisy.mean()

network = nf.from_torch(Denoiser(), init="he")
print(network)

K = nf.NTK(network, y)
steps = [10, 30, 100, 300, 1000]
for t, z in zip(steps, nf.gradient_descent(K, y, steps) + noisy.mean(), strict=True):
    print(f"{t:5d} steps: PSNR {peak_signal_noise_ratio(clean, z, data_range=1):.2f} dB")
print(f"noisy      : PSNR {peak_signal_noise_ratio(clean, noisy, data_range=1):.2f} dB")
