"""Tests of the command line share these: what stands in for the denoiser and the kernels, pictures, and a shell."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import ntkfast
from ntkfast.app.image_files import ImageFile, write_image
from ntkfast.network import Network
from ntkfast.restoration.denoise import DenoiseInfo


class FakeDenoiser:
    """This adds 10 to every pixel and remembers how it was called; ``meanwhile`` runs during the work."""

    def __init__(self) -> None:
        self.calls: list[tuple[np.ndarray, dict[str, Any]]] = []
        self.meanwhile: Callable[[], object] = lambda: None

    def __call__(self, image: np.ndarray, **options: Any) -> Any:
        self.calls.append((image, options))
        progress = options["compute"].progress or (lambda _: None)
        for fraction in (0.0, 0.5, 1.0):
            progress(fraction)
        self.meanwhile()
        noise = options["noise"] or ntkfast.NoiseModel(24.83, estimated=True)
        level = 1.0 if isinstance(noise, ntkfast.PoissonGaussian) else float(np.mean(noise.sigma))
        method = options["method"]
        info = DenoiseInfo(
            method=replace(method, size=16, overlap=8) if isinstance(method, ntkfast.Tiles) else method, noise=noise,
            level=level, tiles=4096, steps=(37, 210), learning_rate=(0.01, 0.02), stopping=method.stopping,
            passes=method.passes, seconds=3.21,
        )  # fmt: skip
        return (image + 10, info) if options.get("return_info") else image + 10


class FakeKernel:
    """Its filter weights fall off with the distance from the pixel, 4 at the pixel itself; -1 in the first column."""

    calls: list[tuple[Network, np.ndarray, dict[str, Any]]]

    def __init__(self, network: Network, image: np.ndarray, **options: Any) -> None:
        self.shape = image.shape[:2]
        FakeKernel.calls.append((network, image, options))

    def affinity(self, row: int, col: int) -> np.ndarray:
        y, x = np.ogrid[: self.shape[0], : self.shape[1]]
        weights = 4.0 * np.exp(-((y - row) ** 2 + (x - col) ** 2) / 20)
        weights[:, 0] = -1.0
        return weights


class FakeCovariance(FakeKernel):
    """In place of NNGP: its calls have another kernel among their options."""

    def __init__(self, network: Network, image: np.ndarray, **options: Any) -> None:
        super().__init__(network, image, kernel="nngp", **options)


def save(name: str, shape: tuple[int, ...], dtype: str = "uint8", alpha: bool = False) -> ImageFile:
    """Write and return a random picture with values from 1 to 200."""
    rng = np.random.default_rng(0)
    pixels = rng.uniform(1, 200, shape).astype(dtype).astype(np.float32)
    plane = rng.uniform(0, 200, shape[:2]).astype(dtype) if alpha else None
    image = ImageFile(pixels, plane, np.dtype(dtype), Path(name))
    write_image(image, name)
    return image


def names() -> list[str]:
    return sorted(os.listdir())


def fail(error: BaseException) -> Callable[..., Any]:
    def function(*_: object, **__: object) -> None:
        raise error

    return function


def shell(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ntkfast", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, **options)


def noisy_picture(name: str, size: int, sigma: float = 25.0) -> np.ndarray:
    """Write a noisy 8 bit picture of coarse stripes and return it without noise."""
    y, x = np.mgrid[:size, :size]
    clean = 127 + 70 * np.sign(np.sin(x / 4.0) + np.cos((x + 2 * y) / 9.0))
    noisy = clean + np.random.default_rng(0).normal(0, sigma, clean.shape)
    write_image(ImageFile(noisy.astype(np.float32), None, np.dtype(np.uint8), Path(name)), name)
    return clean
