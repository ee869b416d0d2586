"""Add noise to a photograph, remove it, and say how well that went.

    python examples/denoise_photo.py [--size N] [--sigma S] [--out DIR]

It writes ``noisy.png``, ``denoised.png`` and ``affinity.png`` (the filter weights of one pixel; needs the ``plot``
extra) to DIR, replacing files of these names.  The photograph, scikit-image's *astronaut* (512 x 512, NASA, public
domain), is part of scikit-image's package: nothing is downloaded.  Values are 0 to 255 throughout.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from pathlib import Path

import imagecodecs
import numpy as np
import skimage.data
from skimage.metrics import peak_signal_noise_ratio
from skimage.restoration import denoise_nl_means
from tqdm import tqdm

import ntkfast as nf
from ntkfast.app import cli, figures
from ntkfast.app.image_files import write_atomically

FULL_SIZE = 512
SEED = 0
FACE = 110, 225  # row and column around which the photograph is cropped
CHEEK = 116, 210  # the pixel whose filter weights are drawn


def crop_start(size: int) -> tuple[int, int]:
    """Return first row and column of the crop of side ``size`` that has the face in its middle, or nearly there."""
    row, col = (min(max(centre - size // 2, 0), FULL_SIZE - size) for centre in FACE)
    return row, col


def photograph(size: int) -> np.ndarray:
    """Return the crop, float32 of shape (size, size, 3), 0 to 255."""
    row, col = crop_start(size)
    return skimage.data.astronaut()[row : row + size, col : col + size].astype(np.float32)


def add_noise(clean: np.ndarray, sigma: float) -> np.ndarray:
    """Add Gaussian noise of standard deviation ``sigma``, the same at every call; values may leave 0 to 255."""
    noise = np.random.default_rng(SEED).normal(0, sigma, clean.shape)
    return (clean + noise).astype(np.float32)


def denoise(noisy: np.ndarray) -> tuple[np.ndarray, nf.DenoiseInfo]:
    """Denoise with nothing known of the noise, behind a progress bar where there is a terminal to show it."""
    with tqdm(total=1.0, desc="denoise", disable=None, leave=False, bar_format="{desc} |{bar}| {elapsed}") as bar:
        denoised, info = nf.denoise_ntk(
            noisy, channel_axis=-1, return_info=True, compute=nf.Compute(progress=lambda done: bar.update(done - bar.n))
        )
    return denoised, info


def non_local_means(noisy: np.ndarray, sigma: float) -> np.ndarray:
    """Return scikit-image's fast non-local means, which is told the noise level."""
    return denoise_nl_means(
        noisy, patch_size=5, patch_distance=7, h=0.6 * sigma, sigma=sigma, fast_mode=True, channel_axis=-1
    )


def eight_bit(pixels: np.ndarray) -> np.ndarray:
    """Round and clip to what a PNG or JPEG file holds."""
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def main() -> int:
    """Run the example and return the exit code."""
    args = parse_arguments()
    figures.check_available()  # before the work, not after it
    args.out.mkdir(parents=True, exist_ok=True)

    clean = photograph(args.size)
    noisy = add_noise(clean, args.sigma)
    write_atomically(args.out / "noisy.png", imagecodecs.png_encode(eight_bit(noisy)), overwrite=True)
    denoised, info = denoise(noisy)
    write_atomically(args.out / "denoised.png", imagecodecs.png_encode(eight_bit(denoised)), overwrite=True)

    row, col = (place - start for place, start in zip(CHEEK, crop_start(args.size), strict=True))
    kernel_size = info.method.network.convs[0].kernel_size
    command = ["affinity", str(args.out / "denoised.png"), "--at", f"{row},{col}", "--kernel-size", str(kernel_size)]
    code = cli.main([*command, "--output", str(args.out / "affinity.png"), "--force"])
    if code != 0:
        return code

    started = time.perf_counter()
    means = non_local_means(noisy, args.sigma)
    means_seconds = time.perf_counter() - started
    results = {"noisy": (noisy, 0.0), "non-local means": (means, means_seconds), "ntkfast": (denoised, info.seconds)}
    report(args, info, results, clean)
    return 0


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Add noise to a photograph and remove it with ntkfast.")
    parser.add_argument("--size", type=int, default=FULL_SIZE, help="side of the crop in pixels (default: all, 512)")
    parser.add_argument("--sigma", type=float, default=25.0, help="noise level to add, of 255 (default: 25)")
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder to write to (default: out)")
    args = parser.parse_args()
    if not 32 <= args.size <= FULL_SIZE:
        parser.error(f"argument --size: must lie between 32 and {FULL_SIZE}, got {args.size}")
    if not (args.sigma > 0 and math.isfinite(args.sigma)):
        parser.error(f"argument --sigma: must be a finite number > 0, got {args.sigma}")
    return args


def report(
    args: argparse.Namespace, info: nf.DenoiseInfo, results: dict[str, tuple[np.ndarray, float]], clean: np.ndarray
) -> None:
    """Print what was done, and what each method made of the noise."""
    steps = " then ".join(map(str, info.steps))
    print(f"picture      astronaut, {args.size} x {args.size}, Gaussian noise of level {args.sigma:g} of 255")
    print(f"noise level  {info.level:.1f} (estimated from the noisy picture)")
    print(f"tiles        {info.tiles} of {info.method.size} x {info.method.size}, overlapping by {info.method.overlap}")
    print(f"steps        {steps} (chosen from the noisy picture)")
    for name, (picture, seconds) in results.items():
        decibels = peak_signal_noise_ratio(clean, picture, data_range=255)
        took = f"   {seconds:.1f} s" if seconds else ""
        print(f"PSNR         {decibels:5.2f} dB   {name}{took}")
    print(f"written      {', '.join(str(args.out / name) for name in ('noisy.png', 'denoised.png', 'affinity.png'))}")


if __name__ == "__main__":
    sys.exit(main())
