"""This measures products and whole filters on a card: time, share of the floor, and errors against the CPU.

``python -m bench.gpu`` measures what fits into its time limit, the small sizes first, and prints a table;
bench/gpu_check.sh runs it with all else that is to be checked on a machine with a card.  ``--small`` checks a few small
products against the CPU and measures nothing: for compute-sanitizer.

It needs NumPy, SciPy and lazy_loader alone; right-hand sides lie on the card if CuPy or PyTorch is there.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine
from bench.networks import NETWORKS, table
from ntkfast import NTK, Conv, Network, gradient_descent, info, unet

COLUMNS = 3
TOLERANCE = 1e-5  # relative to the largest number of the result
CASES: dict[str, Network] = {"conv11": NETWORKS["conv11"], "three3x3": NETWORKS["three3x3"], "unet": unet(2)}
SIZES = (256, 512, 1024, 2048, 4096)

# The floor counts on so many instructions of a lane for a pair and hidden layer, and on all lanes of all
# multiprocessors being busy in every cycle.
INSTRUCTIONS_PER_PAIR_LAYER = 30
LANES_PER_MULTIPROCESSOR = 128

CPU_UP_TO = 256  # side up to which the whole product is compared with the CPU's; above, some columns are
DESCENT_STEPS = (10, 100, 1000)
SMALL = (16, 24)
LONG = 10.0  # seconds


class OutOfTimeError(Exception):
    """A product took longer than was left."""


class Clock:
    """This knows what is left of the time limit; it is a progress callback that stops what outruns it."""

    def __init__(self, seconds: float) -> None:
        self._end = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return self._end - time.monotonic()

    def progress(self, _: float) -> None:
        if self.left < 0:
            raise OutOfTimeError


def picture(size: int, channels: int = COLUMNS) -> np.ndarray:
    """Return noise with a photograph's spectrum, amplitudes falling as 1/frequency: float64 (size, size, C)."""
    rng = np.random.default_rng(size)
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None, :])
    amplitude = 1 / np.maximum(frequency, 1 / size)
    planes = [np.fft.irfft2(amplitude * np.fft.rfft2(rng.standard_normal((size, size)))) for _ in range(channels)]
    x = np.stack([plane / plane.std() for plane in planes], axis=-1) * 0.2
    x += 0.05 * rng.standard_normal(x.shape)  # and some of all frequencies alike
    return np.asarray(x - x.mean(axis=(0, 1)))


def pair_layers(network: Network, size: int) -> float:
    """Count unordered pairs through hidden layers; a layer at half the resolution has a sixteenth of the pairs."""
    convs = [node.level for node in network.graph() if isinstance(node.layer, Conv)]
    return sum((size / 2**level) ** 4 / 2 for level in convs[:-1])


def clock_hz() -> float | None:
    """Return the highest clock of the first card's multiprocessors; None where nvidia-smi does not say it."""
    query = ["nvidia-smi", "--id=0", "--query-gpu=clocks.max.sm", "--format=csv,noheader,nounits"]
    try:
        return 1e6 * float(subprocess.run(query, capture_output=True, text=True, check=True).stdout.split()[0])
    except (OSError, subprocess.CalledProcessError, ValueError, IndexError):
        return None


def floor() -> float | None:
    """Return the pair-layers a second that the first card could do at most, by its multiprocessors and its clock."""
    hertz, here = clock_hz(), info()
    if hertz is None or here["cuda"] != "cuda":
        return None
    multiprocessors = int(here["cuda_cards"][0]["multiprocessors"])
    return multiprocessors * LANES_PER_MULTIPROCESSOR * hertz / INSTRUCTIONS_PER_PAIR_LAYER


def on_card(array: np.ndarray) -> Any:
    """Copy to the card's memory, by CuPy or PyTorch; without either, or if the card is emulated, return the array."""
    if info()["cuda"] != "cuda":
        return array
    try:
        import cupy

        return cupy.asarray(array)
    except ImportError:
        pass
    try:
        import torch

        return torch.as_tensor(array, device="cuda:0")
    except ImportError:
        return array


def on_host(array: Any) -> np.ndarray:
    """Return a NumPy array: of CuPy's by ``get``, of PyTorch's by ``cpu``."""
    for copy in ("get", "cpu"):
        if hasattr(array, copy):
            array = getattr(array, copy)()
    return np.asarray(array)


def deviation(got: np.ndarray, want: np.ndarray, largest: float) -> float:
    """Return the largest error over the largest number of the whole result."""
    return float(np.abs(got.astype(np.float64) - want).max() / largest)


def product_error(K: NTK, image: np.ndarray, v: np.ndarray, out: np.ndarray) -> float:
    """Compare with the CPU's product on small images; on larger ones with column_i . v, the columns in double."""
    size, largest = image.shape[0], float(np.abs(out).max())
    if size <= CPU_UP_TO:
        return deviation(out, NTK(K.network, image, device="cpu", storage="stream", channel_axis=-1) @ v, largest)
    d = size * size
    pixels = [d - 1, d // 2 + size // 2] if size <= 1024 else [d // 2 + size // 2]
    return deviation(out[pixels], K.columns(pixels).astype(np.float64).T @ v.astype(np.float64), largest)


def repeated(call: Callable[[], Any], clock: Clock, most: int) -> tuple[Any, list[float]]:
    """Return the result and the times of up to ``most`` calls after one that warms up; fewer if a call is long."""
    start = time.perf_counter()
    result = call()
    warm = time.perf_counter() - start
    times: list[float] = [warm] if warm > LONG else []  # beside which the warming up is nothing
    while len(times) < most and (not times or warm < clock.left / 10):
        start = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - start)
    return result, times


def measure_product(name: str, size: int, storage: str, clock: Clock, best: float | None) -> dict[str, Any]:
    """Return the times of a product, and its error."""
    image = picture(size)
    v = image.reshape(-1, COLUMNS).astype(np.float32)
    start = time.perf_counter()
    K = NTK(CASES[name], image, device="cuda", storage=storage, progress=clock.progress, channel_axis=-1)
    made = time.perf_counter() - start
    given = on_card(v)
    out, times = repeated(lambda: K @ given, clock, most=5)
    seconds = statistics.median(times)
    rate = pair_layers(K.network, size) / seconds
    error = product_error(K, image, v, on_host(out))
    return {
        "seconds": seconds,
        "times": times,
        "seconds_to_make": made,
        "pair_layers_per_s": rate,
        "share_of_floor": None if best is None or storage != "stream" else rate / best,
        "error": error,
        "device_bytes_estimated": K.memory_estimate(COLUMNS)[storage],
    }


def measure_descent(name: str, size: int, storage: str, clock: Clock) -> dict[str, Any]:
    """Time a whole denoising by gradient descent: operator, largest eigenvalue, all times."""
    image = picture(size)
    y = on_card(image.astype(np.float32))
    start = time.perf_counter()
    K = NTK(CASES[name], image, device="cuda", storage=storage, progress=clock.progress, channel_axis=-1)
    z, found = gradient_descent(K, y, steps=DESCENT_STEPS, return_info=True)
    seconds = time.perf_counter() - start
    error = None
    if size <= CPU_UP_TO // 2:
        want = gradient_descent(NTK(CASES[name], image, device="cpu", channel_axis=-1), image, steps=DESCENT_STEPS)
        error = deviation(on_host(z), want, float(np.abs(want).max()))
    return {"seconds": seconds, "products": found.products, "error": error, "bound": found.error, "storage": K.storage}


def row(result: dict[str, Any]) -> list[str]:
    """Return one line of the table."""

    def number(key: str, form: str) -> str:
        return "" if result.get(key) is None else format(result[key], form)

    missed = result.get("error") is not None and result["error"] > result["tolerance"]
    return [
        f"{result['what']}, {result['network']}, {result['size']}",
        number("seconds", ".4f"),
        number("products", "d"),
        number("pair_layers_per_s", ".2e"),
        number("share_of_floor", ".2f"),
        number("error", ".1e") + ("*" if missed else ""),
        result.get("skipped", ""),
    ]


HEAD = ["what, network, side", "s", "products", "pair-layers/s", "of the floor", "error", ""]


def small() -> int:
    """Compare a few small products of each network, chain or graph, with the CPU's; return 1 if one is wrong."""
    worst = 0.0
    for name, network in CASES.items():
        for padding in ("zeros", "circular"):
            net = Network(network.layers, padding)
            image = picture(24)[: SMALL[0]]
            v = image.reshape(-1, COLUMNS).astype(np.float32)
            for dtype in ("float32", "float64"):
                want = NTK(net, image, device="cpu", dtype="float64", channel_axis=-1) @ v
                for storage in ("stream", "dense") if net.levels == 0 else ("stream", "coarse", "dense"):
                    K = NTK(net, image, device="cuda", dtype=dtype, storage=storage, channel_axis=-1)
                    for out in (K @ v, K @ v):
                        error = deviation(out, want, float(np.abs(want).max()))
                        worst = max(worst, error)
                        if error > TOLERANCE:
                            print(f"wrong: {name}, {padding}, {dtype}, {storage}: {error:.1e}")
    print(f"largest error {worst:.1e}")
    return 0 if worst <= TOLERANCE else 1


def cases(sizes: list[int], names: list[str], best: float | None) -> list[tuple[dict[str, Any], Callable[..., Any]]]:
    """Return what is measured, the small sizes first."""
    out: list[tuple[dict[str, Any], Callable[..., Any]]] = []
    for size in sizes:
        for name in names:
            label = {"network": name, "size": size, "tolerance": TOLERANCE}
            out.append(
                (
                    {"what": "product", "storage": "stream", **label},
                    lambda clock, name=name, size=size: measure_product(name, size, "stream", clock, best),
                )
            )
            # Lanczos stops where its own bound is below 1e-5, on either side.
            out.append(
                (
                    {"what": "descent", **label, "tolerance": 10 * TOLERANCE},
                    lambda clock, name=name, size=size: measure_descent(name, size, "auto", clock),
                )
            )
            if size <= CPU_UP_TO:
                out.append(
                    (
                        {"what": "stored product", "storage": "dense", **label},
                        lambda clock, name=name, size=size: measure_product(name, size, "dense", clock, best),
                    )
                )
    return out


def attempt(measure: Callable[[Clock], dict[str, Any]], clock: Clock, predicted: float) -> dict[str, Any]:
    """Return what was measured, or why it was ``skipped``; one case must not stop the others."""
    if predicted > clock.left:
        return {"skipped": f"not run: some {predicted:.0f} s predicted"}
    try:
        return measure(clock)
    except OutOfTimeError:
        return {"skipped": "stopped: out of time"}
    except MemoryError as error:
        return {"skipped": f"not run: {error or 'out of memory'}"}
    except Exception as error:
        return {"skipped": f"FAILED: {type(error).__name__}: {error}", "failed": True}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=list(SIZES), help="sides of the image, multiples of 4")
    parser.add_argument("--networks", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--seconds", type=float, default=200, help="time limit of all together")
    parser.add_argument("--small", action="store_true", help="check some small products only")
    parser.add_argument("--json", type=Path, help="write the results here, after each of them")
    args = parser.parse_args()
    here = info()
    if here["cuda_missing"] is not None:
        print(f"no card: {here['cuda_missing']}", file=sys.stderr)
        return 1
    if args.small:
        return small()

    best, clock = floor(), Clock(args.seconds)
    card = {"cards": here["cuda_cards"], "driver": here["cuda_driver"], "floor": best}
    results: list[dict[str, Any]] = []
    last: dict[tuple[str, str], float] = {}  # seconds of the last size of the same kind
    failed = False
    for result, measure in cases(sorted(args.sizes), args.networks, best):
        kind = (result["what"], result["network"])
        size = result["size"]
        predicted = last[kind] * (size / result_size(results, kind)) ** 4 if kind in last else 0.0
        start = time.monotonic()
        result |= attempt(measure, clock, predicted)
        if "seconds" in result:
            last[kind] = time.monotonic() - start
        failed |= result.get("failed", False) or (result.get("error") or 0.0) > result["tolerance"]
        results.append(result)
        print("  ".join(filter(None, row(result))), flush=True)
        if args.json:
            machine.save(args.json, {"card": card, "results": results})

    names = ", ".join(device["name"] for device in here["cuda_cards"])
    print(f"\n{names}; driver {here['cuda_driver']}; commit {machine.commit()}")
    print("\n".join(line.rstrip() for line in table(HEAD, [row(result) for result in results])))
    print("* error above what is allowed" if failed else "all errors are as small as they must be")
    return 1 if failed else 0


def result_size(results: list[dict[str, Any]], kind: tuple[str, str]) -> int:
    """Return the side of the last result of a kind that was measured."""
    measured = [r for r in results if (r["what"], r["network"]) == kind and "seconds" in r]
    return int(measured[-1]["size"])


if __name__ == "__main__":
    sys.exit(main())
