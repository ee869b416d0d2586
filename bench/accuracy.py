"""This measures errors of the engine against the dense float64 reference: the tables of docs/math.md.

``python -m bench.accuracy`` prints, for each dtype, image and network, the largest error of an entry over the largest
entry of the kernel, the worst of both paddings and of every instruction-set level of this machine.
``python -m bench.accuracy --seeds 100 --images spiked --size 12`` prints how the errors in float32 are spread over the
seeds of an image.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine
from bench.networks import stack, table
from ntkfast import GELU, NTK, Conv, Erf, LeakyReLU, Network, ReLU, Sin, Upsample, autoencoder, info, unet, vanilla_cnn
from ntkfast.reference import kernel_matrix

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from images import HARD, IMAGES, NATURAL, noise

DTYPES = ("float32", "float64")
PADDINGS = ("zeros", "circular")
HARD_BAR = 1e-5  # float32, images made to be hard


def smooth(activation: GELU | Erf | Sin) -> Network:
    """Return two hidden layers with an activation that knows the size of its input."""
    return Network([Conv(3), activation, Conv(3), activation, Conv(1)])


NETWORKS: dict[str, Network] = {
    "5": vanilla_cnn(1, 5),
    "11": vanilla_cnn(1, 11),
    "3 3 3": vanilla_cnn(3, 3),
    "3 3 3 3 3": stack(5, 3),
    "1": vanilla_cnn(1, 1),
    "1 1 1": vanilla_cnn(3, 1),
    "leaky": Network([Conv(5), LeakyReLU(0.1), Conv(3), LeakyReLU(-0.3), Conv(3)]),
    "unet 2": unet(2),
    "autoencoder 1": autoencoder(1),
    "autoencoder 2": autoencoder(2),
    "stride": Network([Conv(3, stride=2), ReLU(), Conv(3), ReLU(), Upsample(), Conv(3)]),
    "gelu": smooth(GELU()),
    "erf": smooth(Erf()),
    "sin": smooth(Sin()),
}


def photograph(height: int, width: int, channels: int, seed: int) -> np.ndarray:
    """Return the natural image in 256 levels: flat parts hold patches that are exactly parallel or nearly so."""
    return np.round(255 * IMAGES["natural"](height, width, channels, seed)) / 255


def halves(height: int, width: int, channels: int, seed: int) -> np.ndarray:
    """Return halves at 1 and 1/3: parallel patches, at the ratio of lengths where an error of the angle weighs most."""
    return np.where(np.arange(height) < height // 2, 1.0, 1 / 3)[:, None, None] * np.ones((width, channels))


def nearly_parallel(height: int, width: int, channels: int, seed: int) -> np.ndarray:
    """Return the same with relative noise of 5e-4."""
    return halves(height, width, channels, seed) * (1 + 5e-4 * noise(height, width, channels, seed))


def nearly_opposite(height: int, width: int, channels: int, seed: int) -> np.ndarray:
    """Return a checkerboard of -1 and 1 with noise of 5e-4: patches that are nearly opposite."""
    rows, cols = np.indices((height, width))
    return (2.0 * ((rows + cols) % 2) - 1)[..., None] + 5e-4 * noise(height, width, channels, seed)


# These go beyond the images of the tests: the snap to the angles 0 and pi changes them.
LIMITS: dict[str, Callable[[int, int, int, int], np.ndarray]] = {
    f.__name__: f for f in (photograph, halves, nearly_parallel, nearly_opposite)
}
KINDS = {name: IMAGES[name] for name in (*NATURAL, *HARD) if name != "zero"} | LIMITS


def error(actual: np.ndarray, expected: np.ndarray) -> float:
    """Return the largest error of an entry over the largest entry."""
    return float(np.abs(actual - expected).max() / np.abs(expected).max())


def measure(image: np.ndarray, network: Network) -> dict[str, dict[tuple[str, str], float]]:
    """Return the error by dtype and (padding, level)."""
    errors: dict[str, dict[tuple[str, str], float]] = {dtype: {} for dtype in DTYPES}
    for padding in PADDINGS:
        net = Network(network.layers, padding=padding)
        theta = kernel_matrix(net, image, channel_axis=-1)
        for isa in info()["isa_supported"]:
            os.environ["NTKFAST_ISA"] = isa
            for dtype in DTYPES:
                errors[dtype][padding, isa] = error(
                    NTK(net, image, dtype=dtype, storage="stream", channel_axis=-1).dense(), theta
                )
    return errors


def rows(results: Sequence[dict[str, Any]], dtype: str) -> list[list[str]]:
    """Return a line for each image: the worst of the paddings and levels for each network."""
    lines: dict[str, list[str]] = {}
    for result in results:
        name = f"{result['image']}, {'gray' if result['channels'] == 1 else 'colour'}"
        lines.setdefault(name, [name]).append(f"{max(result['errors'][dtype].values()):.1e}")
    return list(lines.values())


def spread(results: Sequence[dict[str, Any]], dtype: str) -> str:
    """Say how far the paddings and levels differ: the worst of all images and networks for each."""
    names = sorted({key for result in results for key in result["errors"][dtype]})
    worst = {key: max(result["errors"][dtype][key] for result in results) for key in names}
    return ", ".join(f"{padding}/{isa} {value:.1e}" for (padding, isa), value in worst.items())


def over_seeds(name: str, size: int, seeds: int) -> list[list[str]]:
    """Return for each network in float32 the median and worst error over seeds, and how many exceed 1e-5."""
    lines = []
    for label, network in NETWORKS.items():
        errors = []
        for seed in range(seeds):
            image = KINDS[name](size, size, (3, 1)[seed % 2], seed)
            for padding in PADDINGS:
                net = Network(network.layers, padding=padding)
                errors.append(
                    error(
                        NTK(net, image, storage="stream", channel_axis=-1).dense(),
                        kernel_matrix(net, image, channel_axis=-1),
                    )
                )
        above = f"{100 * np.mean(np.array(errors) > HARD_BAR):.1f} %"
        lines.append([label, f"{np.median(errors):.1e}", above, f"{max(errors):.1e}"])
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=24, help="side of the images")
    parser.add_argument("--images", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the results here")
    parser.add_argument("--seeds", type=int, help="so many images of each kind, gray and colour in turns")
    args = parser.parse_args()

    if args.seeds:
        for name in args.images:
            print(
                f"{name}: max error over max|T|, float32, {args.size} x {args.size}, {args.seeds} seeds, both paddings"
            )
            lines = over_seeds(name, args.size, args.seeds)
            print("\n".join(table(["network", "median", f"above {HARD_BAR:g}", "worst"], lines)))
        return
    results: list[dict[str, Any]] = []
    for name in args.images:
        for channels in (3, 1):
            image = KINDS[name](args.size, args.size, channels, args.seed)
            for label, network in NETWORKS.items():
                errors = measure(image, network)
                results.append({"image": name, "channels": channels, "network": label, "errors": errors})
    print(f"max error over max|T|, {args.size} x {args.size}; chains by the kernel sizes of their convolutions")
    for dtype in DTYPES:
        print(f"\n{dtype}")
        print("\n".join(table(["image", *NETWORKS], rows(results, dtype))))
        print(f"worst by padding/level: {spread(results, dtype)}")
    if args.json:
        for result in results:
            result["errors"] = {
                dtype: {"/".join(key): value for key, value in by.items()} for dtype, by in result["errors"].items()
            }
        machine.save(args.json, results)


if __name__ == "__main__":
    main()
