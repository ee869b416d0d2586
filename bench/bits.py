"""This hashes what some forty calls return: the same before and after a change that must not change any number.

``python -m bench.bits --json before.json`` on one commit and ``python -m bench.bits --against before.json`` on another,
on the same machine and with the same compiler, says which results differ, if any, and exits with 1 then.  The calls
cover networks, paddings, kernels, storages, dtypes, numbers of threads, the instruction-set levels of this machine, the
filters, low-rank kernels, the denoiser, inverse problems, finite networks and, in a build that has a CUDA engine
(emulated, say), device="cuda".  Only public names are used, so that the script runs on either commit.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import ntkfast as nf

Call = Callable[[], Any]
THREADS = 2


def image(height: int, width: int, channels: int, seed: int) -> np.ndarray:
    """Return a smooth wave with edges and noise, float64 (H, W, C): patches that are alike, and such that are not."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    wave = np.sin(x / 5.0) * np.cos(y / 7.0) + ((x + y) % 16 < 8)
    return np.stack([wave * (1 + 0.2 * c) + 0.1 * rng.standard_normal(wave.shape) for c in range(channels)], axis=-1)


def residual() -> nf.Network:
    """Return sums, concatenations, strides, an average pool and activations of each kind in one network."""
    return nf.Network(
        [
            nf.Conv(3, weight_var=1.2, bias_var=0.1),
            nf.Skip([nf.ReLU(), nf.Conv(5, weight_var=1.5, bias_var=0.2)], merge="add"),
            nf.Abs(),
            nf.Skip([nf.AvgPool(), nf.Conv(3), nf.GELU(), nf.Upsample()], share=0.4),
            *[nf.Conv(3, weight_var=0.8), nf.Erf(), nf.Conv(3, stride=2), nf.Sin(), nf.Upsample(mode="nearest")],
            *[nf.Conv(3), nf.Cos(), nf.Conv(1), nf.LeakyReLU(0.2), nf.Conv(1)],
        ]
    )


NETWORKS: dict[str, Callable[[], nf.Network]] = {
    "vanilla 1 11": lambda: nf.vanilla_cnn(1, 11),
    "vanilla 3 3": lambda: nf.vanilla_cnn(3, 3),
    "autoencoder 1": lambda: nf.autoencoder(1, upsample="nearest"),
    "unet 2": lambda: nf.unet(2),
    "residual": residual,
}


def with_padding(network: nf.Network, padding: str) -> nf.Network:
    """Return the same layers with another padding."""
    return nf.Network(network.layers, padding=padding)


def vectors(d: int, columns: int = 3) -> np.ndarray:
    """Return right-hand sides, float64 (d, columns)."""
    return np.random.default_rng(7).standard_normal((d, columns))


def kernel(
    name: str, padding: str = "zeros", side: int = 24, operator: type[nf.NTK] | type[nf.NNGP] = nf.NTK, **options: Any
) -> nf.NTK | nf.NNGP:
    """Return the kernel of a named network on a colour image of ``side`` x (side + 8) pixels, by default on the CPU."""
    options = {"device": "cpu", "threads": THREADS, **options}
    return operator(with_padding(NETWORKS[name](), padding), image(side, side + 8, 3, 1), **options, channel_axis=-1)


@contextmanager
def isa(level: str) -> Iterator[None]:
    """Let the engine run at an instruction-set level within it."""
    before = os.environ.get("NTKFAST_ISA")
    os.environ["NTKFAST_ISA"] = level
    try:
        yield
    finally:
        if before is None:
            del os.environ["NTKFAST_ISA"]
        else:
            os.environ["NTKFAST_ISA"] = before


def product(name: str, padding: str, columns: int = 3, level: str | None = None, **options: Any) -> Call:
    """Return a product with some columns, at an instruction-set level."""

    def call() -> Any:
        with isa(level or nf.info()["isa_active"]):
            K = kernel(name, padding, **options)
            return K @ vectors(K.shape[0], columns)

    return call


def products() -> Iterator[tuple[str, Call]]:
    """Yield every network and padding; then each option by itself."""
    for name in NETWORKS:
        for padding in ("zeros", "circular"):
            yield f"{name}, {padding}", product(name, padding, storage="stream")
    for level in nf.info()["isa_supported"]:
        yield f"vanilla 3 3, {level}", product("vanilla 3 3", "zeros", level=level, storage="stream")
        yield f"residual, {level}, float64", product("residual", "circular", level=level, dtype="float64")
    for storage in ("coarse", "dense"):
        yield f"unet 2, {storage}", product("unet 2", "zeros", storage=storage)
    yield "vanilla 1 11, 9 columns, 1 thread", product("vanilla 1 11", "zeros", columns=9, threads=1)
    yield "unet 2, float64", product("unet 2", "zeros", dtype="float64")
    yield "residual, nngp", product("residual", "zeros", operator=nf.NNGP)
    if any(device.startswith("cuda") for device in nf.info()["devices"]):
        for name in ("vanilla 3 3", "unet 2", "residual"):
            yield f"{name}, cuda", product(name, "zeros", device="cuda", side=16)
        yield "unet 2, circular, cuda, float64", product("unet 2", "circular", device="cuda", dtype="float64", side=16)


def operators() -> Iterator[tuple[str, Call]]:
    """Yield other methods of the operator, filters and low-rank kernels."""
    yield "diagonal", lambda: kernel("residual").diagonal()
    yield "columns", lambda: kernel("unet 2").columns([0, 5, 77])
    yield "dense", lambda: kernel("vanilla 3 3").dense()
    yield "affinity, circular", lambda: kernel("autoencoder 1", "circular").affinity(3, 4)
    yield "noise", lambda: nf.NTK(nf.unet(1, padding="circular"), nf.NoiseInput((16, 16))) @ vectors(256)
    y = vectors(24 * 32)
    yield "gradient descent", lambda: nf.gradient_descent(kernel("vanilla 3 3"), y, steps=(10, 300))
    yield "gradient flow", lambda: nf.gradient_flow(kernel("vanilla 1 11"), y, t=0.5)
    yield "ridge", lambda: nf.ridge(kernel("unet 2"), y, noise_var=0.1)
    yield "nystrom", lambda: nf.nystrom(kernel("vanilla 1 11"), 40) @ y
    yield "randomized", lambda: nf.randomized_low_rank(kernel("vanilla 1 11"), 20, rng=1) @ y


def denoise(channels: int = 3, device: str = "cpu", **options: Any) -> Call:
    """Call the denoiser on a noisy image of 56 x 50 pixels."""

    def call() -> Any:
        noisy = image(56, 50, channels, 2) + 0.3 * np.random.default_rng(3).standard_normal((56, 50, channels))
        picture = noisy if channels > 1 else noisy[..., 0]
        axis = -1 if channels > 1 else None
        compute = nf.Compute(threads=THREADS, device=device)
        return nf.denoise_ntk(picture, channel_axis=axis, compute=compute, **options)

    return call


def restorations() -> Iterator[tuple[str, Call]]:
    """Yield the denoiser and inverse problems."""
    yield "denoise, colour, estimated", denoise()
    yield "denoise, gray, recorrupted", denoise(1, sigma=0.3, method=nf.Tiles(stopping="recorrupted"))
    yield "denoise, map", denoise(sigma=0.2 + 0.01 * np.arange(56)[:, None] * np.ones(50))
    yield "denoise, gain", denoise(1, noise=nf.PoissonGaussian(0.05, 0.2))
    yield "denoise, eigenvectors", denoise(30, sigma=0.3, method=nf.Tiles(steps=20))
    yield "denoise, nystrom", denoise(sigma=0.3, method=nf.WholeImage(landmarks=60, stopping="calibrated"))
    if any(device.startswith("cuda") for device in nf.info()["devices"]):
        yield "denoise, cuda", denoise(sigma=0.3, device="cuda", method=nf.Tiles(steps=(30, 60), size=12))
    clean = image(24, 20, 3, 4)
    known = np.random.default_rng(5).random((24, 20)) < 0.4
    options: dict[str, Any] = {"channel_axis": -1, "compute": nf.Compute("cpu", threads=THREADS)}
    yield (
        "restore, inpainting",
        lambda: nf.restore_ntk(clean, nf.Inpainting(known), sigma=0.05, method=nf.Landweber(passes=2), **options),
    )
    half = clean[::2, ::2]
    yield (
        "restore, downsampling",
        lambda: nf.restore_ntk(half, nf.Downsampling((24, 20), 2), method=nf.Landweber(steps=50), **options),
    )


def finite() -> Iterator[tuple[str, Call]]:
    """Yield the reference and, with PyTorch, networks of finite width."""
    yield "reference", lambda: nf.reference.kernel_matrix(residual(), image(6, 8, 2, 6), channel_axis=-1)
    try:
        import torch
    except ImportError:
        return

    x = torch.as_tensor(image(8, 8, 3, 8).transpose(2, 0, 1)[None])
    yield "finite network", lambda: nf.finite.to_torch(residual(), 16, 3)(x).detach()

    def round_trip() -> np.ndarray:
        network = nf.from_torch(nf.finite.to_torch(nf.unet(1), 4, 3), init="he")
        return np.frombuffer(repr(network).encode(), dtype=np.uint8)

    yield "from_torch", round_trip


def calls() -> dict[str, Call]:
    """Return all of them, by name."""
    return dict([*products(), *operators(), *restorations(), *finite()])


def digest(value: Any) -> str:
    """Return the SHA-256 of an array's dtype, shape and bytes."""
    array = np.ascontiguousarray(value)
    return hashlib.sha256(f"{array.dtype} {array.shape} ".encode() + array.tobytes()).hexdigest()


def main(arguments: list[str] | None = None) -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(description="hash what some forty calls return")
    parser.add_argument("--json", type=Path, help="write the hashes there")
    parser.add_argument("--against", type=Path, help="compare with hashes written before")
    args = parser.parse_args(arguments)
    before = None if args.against is None else json.loads(args.against.read_text())
    hashes, different = {}, 0
    for name, call in calls().items():
        hashes[name] = digest(call())
        outcome = ""
        if before is not None:
            outcome = "new" if name not in before else "same" if before[name] == hashes[name] else "DIFFERENT"
            different += outcome == "DIFFERENT"
        print(f"{hashes[name][:16]}  {name:40} {outcome}", flush=True)
    for name in sorted(set(before or ()) - set(hashes)):
        print(f"{'':16}  {name:40} MISSING")
        different += 1
    if args.json is not None:
        args.json.write_text(json.dumps(hashes, indent=1) + "\n")
    if before is not None:
        print(f"{different} of {len(before)} differ")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
