"""In a deep image prior a U-Net of random weights is trained to turn fixed noise into the noisy picture, and stopped.

Ulyanov, Vedaldi, Lempitsky, "Deep Image Prior", CVPR 2018, with the settings they give for denoising: five levels of
128 channels, skips of 4, 3000 steps of Adam at 1e-2, an input that is perturbed anew at each step, and the exponential
average of the outputs as the result.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.psnr import decibels

LEVELS, CHANNELS, SKIP_CHANNELS = 5, 128, 4
INPUT_CHANNELS, INPUT_SCALE = 32, 0.1  # the fixed input is uniform in 0 to 0.1
PERTURBATION = 1 / 30  # standard deviation of what is added to it at each step
LEARNING_RATE = 1e-2
AVERAGE = 0.99  # weight of the past in the average of the outputs
SLOPE = 0.2  # the leaky ReLU's


def _block(channels_in: int, channels: int, kernel_size: int, stride: int = 1) -> nn.Sequential:
    """Return a convolution with reflected borders, batch normalisation, leaky ReLU."""
    # Kernels of 1 have no border.
    conv = nn.Conv2d(channels_in, channels, kernel_size, stride, padding=kernel_size // 2, padding_mode="reflect")
    return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.LeakyReLU(SLOPE))


class _Level(nn.Module):
    """A level takes x to [skip(x), up(inner(down(x)))] to its channels; each level within has half the resolution."""

    def __init__(self, channels_in: int, levels: int, channels: int, skip_channels: int) -> None:
        super().__init__()
        self.skip = _block(channels_in, skip_channels, 1)
        inner = [_Level(channels, levels - 1, channels, skip_channels)] if levels > 1 else []
        self.deep = nn.Sequential(
            _block(channels_in, channels, 3, stride=2),
            _block(channels, channels, 3),
            *inner,
            nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False),
        )
        both = skip_channels + channels
        self.merge = nn.Sequential(nn.BatchNorm2d(both), _block(both, channels, 3), _block(channels, channels, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(self.merge(torch.cat([self.skip(x), self.deep(x)], dim=1)))


class Prior:
    """This is the network and its training on one picture.

    Parameters
    ----------
    noisy : ndarray, shape (H, W, C)
        Values 0 to 255.  Sides that the levels cannot halve are left to the network to fill: it makes a larger picture,
        of which the loss sees H x W.
    levels, channels, skip_channels : int
    seed : int
    """

    def __init__(
        self,
        noisy: np.ndarray,
        *,
        levels: int = LEVELS,
        channels: int = CHANNELS,
        skip_channels: int = SKIP_CHANNELS,
        seed: int = 0,
    ) -> None:
        self._random = torch.Generator().manual_seed(seed)
        height, width, colours = noisy.shape
        multiple = 2**levels
        # A reflected border needs two pixels, at the lowest resolution too.
        rows, cols = (max(2, -(-side // multiple)) * multiple for side in (height, width))
        self._shape = height, width
        self._target = torch.as_tensor(noisy / 255.0, dtype=torch.float32).permute(2, 0, 1)[None]
        self._input = INPUT_SCALE * torch.rand((1, INPUT_CHANNELS, rows, cols), generator=self._random)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self._network = nn.Sequential(
                _Level(INPUT_CHANNELS, levels, channels, skip_channels), nn.Conv2d(channels, colours, 1), nn.Sigmoid()
            )
        self._adam = torch.optim.Adam(self._network.parameters(), lr=LEARNING_RATE)
        self._average: torch.Tensor | None = None

    def step(self) -> float:
        """Take one step of Adam; return the mean squared error of the output before it, values 0 to 1."""
        self._adam.zero_grad()
        noise = torch.randn(self._input.shape, generator=self._random)
        height, width = self._shape
        output = self._network(self._input + PERTURBATION * noise)[:, :, :height, :width]
        loss = nn.functional.mse_loss(output, self._target)
        loss.backward()
        self._adam.step()
        last = output.detach()
        self._average = last if self._average is None else AVERAGE * self._average + (1 - AVERAGE) * last
        return float(loss.detach())

    def picture(self) -> np.ndarray:
        """Return the average of the outputs so far, float32 (H, W, C), 0 to 255."""
        if self._average is None:
            raise RuntimeError("picture needs a step first")
        return 255 * self._average[0].permute(1, 2, 0).numpy()


def restore(
    noisy: np.ndarray, *, steps: int, threads: int | None, clean: np.ndarray
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return the average of the outputs after ``steps`` steps, and how it went.

    ``clean`` only serves to tell the best step, which nobody knows in practice.  The second result has ``steps``,
    ``best_psnr`` (dB, of the average), ``best_step`` (from 1), ``seconds_a_step`` (median) and the size of the network.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    prior = Prior(noisy)
    best = float("inf"), 0
    seconds = []
    for step in range(1, steps + 1):
        start = time.perf_counter()
        prior.step()
        seconds.append(time.perf_counter() - start)
        best = min(best, (float(np.mean((prior.picture() - clean) ** 2)), step))
    return prior.picture(), {
        "steps": steps,
        "best_psnr": decibels(best[0]),
        "best_step": best[1],
        "seconds_a_step": float(np.median(seconds)),
        "network": {"levels": LEVELS, "channels": CHANNELS, "skip_channels": SKIP_CHANNELS},
    }
