"""Filter a noisy photograph by the kernel of an infinitely wide network: what ntkfast does, in ten lines.

    python examples/filter_in_ten_lines.py [SIZE]

The network is trained on the noisy picture alone, in closed form, for a number of steps of gradient descent.  It learns
the picture before it learns the noise: the PSNR rises, and falls again.  The picture is a crop of scikit-image's
*astronaut* (NASA, public domain), SIZE x SIZE pixels, 96 by default; values are 0 to 1.
"""

import sys

import numpy as np
import skimage.data
from skimage.metrics import peak_signal_noise_ratio

import ntkfast as nf

size = int(sys.argv[1]) if len(sys.argv) > 1 else 96
clean = skimage.data.astronaut()[62 : 62 + size, 177 : 177 + size] / 255
noisy = clean + np.random.default_rng(0).normal(0, 25 / 255, clean.shape)

mean = noisy.mean(axis=(0, 1))  # the kernel filters what is left without it
K = nf.NTK(nf.vanilla_cnn(depth=1, kernel_size=7), noisy - mean, channel_axis=-1)
steps = [0, 10, 30, 100, 300, 1000, 3000]
for t, z in zip(steps, nf.gradient_descent(K, noisy - mean, steps) + mean, strict=True):
    print(f"{t:5d} steps: PSNR {peak_signal_noise_ratio(clean, np.clip(z, 0, 1), data_range=1):.2f} dB")
print(f"noisy      : PSNR {peak_signal_noise_ratio(clean, np.clip(noisy, 0, 1), data_range=1):.2f} dB")
