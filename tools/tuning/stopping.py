"""This measures what each stopping rule of the denoiser loses against the best times, in dB of PSNR.

The pictures are crops of the test set.

``python -m tools.tuning.stopping --json tools/tuning/results/stopping.json`` prints a row for each picture and sigma.
With ``--fit`` it fits the times of the rule "calibrated" to the tuning set instead, and prints what they lose there and
on the test set.  The package's own values stay as they are.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from bench.networks import table
from bench.psnr import psnr
from bench.quality import pictures
from scipy.interpolate import CubicSpline
from threadpoolctl import threadpool_limits

from ntkfast import Compute, Tiles, denoise_ntk
from ntkfast._choices import PASSES
from ntkfast.restoration import tile_filter
from ntkfast.restoration.stopping import KAPPA, POWER, RISKS, RULES, STEPS, Crops, calibrated_time
from tools.tuning import oracle
from tools.tuning.oracle import Spectra, Trial, blend, tiles_after

Row = dict[str, Any]
FIT_POWERS = np.arange(-25, 26) / 20
FIT_KAPPAS = np.geomspace(1e-4, 1e2, 700)  # 2 % apart


def by_rule(rule: str, *, estimated: bool = False, all_tiles: bool = False) -> Callable[[Trial], float]:
    """Denoise with a rule of the package, told sigma or not; Lanczos waits for all tiles or looks at its few."""

    def run(trial: Trial) -> float:
        sigma = None if estimated else trial.sigma
        method, compute = Tiles(stopping=rule), Compute("cpu", threads=oracle.DEFAULT.threads)
        looked_at = tile_filter.TILES_CHECKED
        try:
            tile_filter.TILES_CHECKED = tile_filter.TILES_PER_BATCH if all_tiles else looked_at
            denoised = denoise_ntk(trial.noisy, sigma, channel_axis=-1, method=method, compute=compute)
            return psnr(trial.clean, denoised)
        finally:
            tile_filter.TILES_CHECKED = looked_at

    return run


def chosen(values: np.ndarray, choice: np.ndarray) -> np.ndarray:
    """Take each tile at its own time: of values (times, tiles, h, w, C) those at choice (tiles,)."""
    return values[choice, np.arange(values.shape[1])]


def each_tile(rule: str) -> Callable[[Trial], float]:
    """Stop each tile at its own least risk of a rule of the package."""

    def run(trial: Trial) -> float:
        sigma = np.full((*trial.pixels.shape[:3], 1), trial.sigma)
        risk = RISKS[rule](replace(trial.crops, pixels=trial.pixels, sigma=sigma))  # not crops: all of the picture
        copies = len(risk.seen) // len(trial.pixels)
        guide, guide_seen = trial.pixels, risk.seen
        for _ in range(PASSES):
            own, pair = trial.filter(guide), trial.filter(guide_seen, risk.seen)
            results = tiles_after(pair, STEPS)
            parts = [(pair if len(part) == len(risk.seen) else own)._tiling.extract(part) for part in risk.parts]
            value = np.stack([risk.value(tiles, *parts) for tiles in results])
            value = value.reshape(len(STEPS), -1, own._tiling.count, *value.shape[2:])
            choice = np.argmin(value.mean(axis=(1, 3, 4, 5)), axis=0)
            guide_seen = blend(pair._tiling, chosen(results, np.tile(choice, copies)))
            same_times = [own.steps(t * pair.learning_rate) for t in STEPS]
            guide = blend(own._tiling, chosen(tiles_after(own, same_times), choice))
        return trial.psnr(guide)

    return run


def tile_calibrated(trial: Trial) -> float:
    """Filter each tile for the calibrated time of its own contrast, the nearest of those tried."""
    guide = trial.pixels
    for kappa, power in zip(KAPPA, POWER, strict=True):
        run = trial.filter(guide)
        # This is the variance of a channel, as `Crops.contrast` is, of the noisy tile less that of the noise.
        variance = run._tiling.extract(trial.pixels).var(axis=(1, 2)).mean(axis=1) - trial.sigma**2
        contrast = np.sqrt(np.maximum(variance, 0.0))
        times = [float(calibrated_time(replace(trial.crops, contrast=c), kappa, power)) for c in contrast]
        steps = np.log([run.steps(time) for time in times])
        choice = np.abs(steps[:, None] - np.log(STEPS)).argmin(axis=1)
        guide = blend(run._tiling, chosen(tiles_after(run, STEPS), choice))
    return trial.psnr(guide)


def tile_stein_fixed(trial: Trial) -> float:
    """Stop each tile at its own least Stein risk with Theta held fixed: |z - y|^2 + 2 sigma^2 div."""
    guide = trial.pixels
    for n in range(PASSES):
        run = trial.filter(guide)
        spectra = Spectra(run) if n else trial.spectra
        results = spectra.after(STEPS)
        risk = (results - run._tiling.extract(trial.pixels)) ** 2 + 2 * trial.sigma**2 * spectra.divergence(STEPS)
        guide = blend(run._tiling, chosen(results, np.argmin(risk.mean(axis=(2, 3, 4)), axis=0)))
    return trial.psnr(guide)


def stein_fixed(trial: Trial) -> float:
    """Take one time for all tiles, of least Stein risk of the blended picture with Theta held fixed."""
    guide = trial.pixels
    for n in range(PASSES):
        run = trial.filter(guide)
        spectra = Spectra(run) if n else trial.spectra
        images = np.stack([blend(run._tiling, z) for z in spectra.after(STEPS)])
        divergence = np.stack([blend(run._tiling, part) for part in spectra.divergence(STEPS)])
        risk = (images - trial.pixels) ** 2 + 2 * trial.sigma**2 * divergence
        guide = images[int(np.argmin(risk.mean(axis=(1, 2, 3, 4))))]
    return trial.psnr(guide)


CHOICES: dict[str, Callable[[Trial], float]] = {
    **{rule: by_rule(rule) for rule in RULES},
    "sure, sigma estimated": by_rule("sure", estimated=True),
    "calibrated, sigma estimated": by_rule("calibrated", estimated=True),
    "sure, Lanczos of all tiles": by_rule("sure", all_tiles=True),
    **{f"{rule}, each tile": each_tile(rule) for rule in RISKS},
    "calibrated, each tile": tile_calibrated,
    "Stein, Theta fixed": stein_fixed,
    "Stein, Theta fixed, each tile": tile_stein_fixed,
}


def measure(trial: Trial, rules: Sequence[str], kept: Row | None = None) -> Row:
    """Return the PSNR at the best times and with each rule, and the rules' seconds; what ``kept`` has is not redone."""
    row: Row = kept or {
        "picture": trial.name,
        "shape": list(trial.clean.shape),
        "sigma": trial.sigma,
        "best": oracle.best(trial),
        "psnr": {},
        "seconds": {},
    }
    for rule in rules:
        if rule not in row["psnr"]:
            with threadpool_limits(1, user_api="blas"):
                start = time.perf_counter()
                row["psnr"][rule] = CHOICES[rule](trial)
                row["seconds"][rule] = time.perf_counter() - start
    return row


def kept_rows(path: Path | None, size: int) -> dict[tuple[str, float], Row]:
    """Return rows of a file by picture and sigma, if their crops were of this size."""
    losses = oracle.parts(path).get("losses")
    if not losses or losses["size"] != size:
        return {}
    return {(row["picture"], row["sigma"]): row for row in losses["rows"]}


def losses(rows: Sequence[Row], rule: str) -> np.ndarray:
    """Return the best PSNR less that with the rule, dB."""
    return np.array([row["best"] - row["psnr"][rule] for row in rows])


def lines(rows: Sequence[Row]) -> list[str]:
    """Return the table: a row for each picture and sigma, then mean and worst over all, by sigma, mean seconds."""
    rules = [rule for rule in CHOICES if all(rule in row["psnr"] for row in rows)]
    body = [
        [f"{r['picture']}, {r['sigma']:g}", f"{r['best']:.2f}", *(f"{r['best'] - r['psnr'][k]:.2f}" for k in rules)]
        for r in rows
    ]
    for sigma in sorted({r["sigma"] for r in rows}):
        some = [r for r in rows if r["sigma"] == sigma]
        body.append([f"mean, {sigma:g}", "", *(f"{losses(some, k).mean():.2f}" for k in rules)])
    body.append(["s", "", *(f"{np.mean([r['seconds'][k] for r in rows]):.2f}" for k in rules)])
    body.append(["mean", "", *(f"{losses(rows, k).mean():.2f}" for k in rules)])
    body.append(["worst", "", *(f"{losses(rows, k).max():.2f}" for k in rules)])
    return table(["loss in dB", "best dB", *rules], body)


class Curve:
    """A Curve is the PSNR of one pass against its time, between the times tried too.

    Parameters
    ----------
    times, values : ndarray, shape (n,)
        Ascending times; PSNR.
    crops : Crops
        What the rule sees.
    """

    def __init__(self, times: np.ndarray, values: np.ndarray, crops: Crops) -> None:
        self._log_times = np.linspace(np.log(times[0]), np.log(times[-1]), 2000)
        self._values = CubicSpline(np.log(times), values)(self._log_times)
        self._crops = crops

    def loss(self, kappa: Any, power: float) -> np.ndarray:
        """Return the loss of the calibrated time against the best time, dB; kappa may be an array."""
        log_time = np.log(calibrated_time(self._crops, kappa, power))
        return np.asarray(self._values.max() - np.interp(log_time, self._log_times, self._values))


def fit(curves: Sequence[Curve]) -> tuple[float, float]:
    """Return kappa and power of least mean loss."""
    mean = [np.mean([curve.loss(FIT_KAPPAS, power) for curve in curves], axis=0) for power in FIT_POWERS]
    best_power, best_kappa = np.unravel_index(np.argmin(mean), np.shape(mean))
    return float(FIT_KAPPAS[best_kappa]), float(FIT_POWERS[best_power])


def fitted(tuning: dict[str, np.ndarray], test: dict[str, np.ndarray], sigmas: Sequence[float]) -> list[Row]:
    """Return kappa and power fitted to the tuning set and those in use, with the losses on both sets.

    Each pass is taken by itself, pass 2 guided by the best image of pass 1, against its own best time; then (pass 0)
    both passes as the denoiser makes them, against the best times of both.
    """
    trials = {
        name: [Trial(picture, clean, sigma) for picture, clean in crops.items() for sigma in sigmas]
        for name, crops in (("tuning", tuning), ("test", test))
    }
    curves: dict[str, list[list[Curve]]] = {}
    for name, some in trials.items():
        curves[name] = [[] for _ in range(PASSES)]
        for trial in some:
            print(f"{trial.name}, sigma {trial.sigma:g}", file=sys.stderr, flush=True)
            for of_pass, one in zip(curves[name], oracle.passes(trial), strict=True):
                of_pass.append(Curve(one.times, one.psnr, trial.crops))
    values = {"fitted": [fit(of_pass) for of_pass in curves["tuning"]], "in use": list(zip(KAPPA, POWER, strict=True))}

    found: list[Row] = []
    for n in range(PASSES):
        for kind, pairs in values.items():
            kappa, power = pairs[n]
            row: Row = {"pass": n + 1, "values": kind, "kappa": kappa, "power": power}
            for name in trials:
                row[name] = summary([float(curve.loss(kappa, power)) for curve in curves[name][n]])
            found.append(row)
    whole: list[Row] = [{"pass": 0, "values": kind} for kind in values]
    for name, some in trials.items():
        best = [oracle.best(trial) for trial in some]
        for row, pairs in zip(whole, values.values(), strict=True):
            reached = [
                oracle.after(trial, [float(calibrated_time(trial.crops, *pair)) for pair in pairs]) for trial in some
            ]
            row[name] = summary([a - b for a, b in zip(best, reached, strict=True)])
    return found + whole


def summary(loss: Sequence[float]) -> dict[str, float]:
    """Return mean and worst loss, dB."""
    return {"mean": float(np.mean(loss)), "worst": max(loss)}


def fit_lines(rows: Sequence[Row]) -> list[str]:
    """Return the table of the fit: losses in dB."""
    body = [
        [
            f"{'pass ' + str(r['pass']) if r['pass'] else 'both passes'}, {r['values']}",
            *((f"{r['kappa']:.4g}", f"{r['power']:.2f}") if r["pass"] else ("", "")),
            *(f"{r[name][key]:.3f}" for name in ("tuning", "test") for key in ("mean", "worst")),
        ]
        for r in rows
    ]
    return table(["loss in dB", "kappa", "power", "tuning mean", "tuning worst", "test mean", "test worst"], body)


def main(argv: list[str] | None = None) -> int:
    """Run the benchmark and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.tuning.stopping",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--fit", action="store_true", help="fit kappa and power of the calibrated rule instead")
    parser.add_argument("--sigmas", type=oracle.positive, nargs="+", default=[10.0, 25.0, 50.0], help="of 255")
    parser.add_argument("--pictures", nargs="+", choices=list(pictures.TEST), default=list(pictures.TEST))
    parser.add_argument(
        "--tuning", nargs="+", choices=list(pictures.TUNING), default=list(pictures.TUNING), help="pictures to fit to"
    )
    parser.add_argument("--rules", nargs="+", choices=list(CHOICES), default=list(CHOICES))
    parser.add_argument("--size", type=oracle.side, default=128, help="side of the crops (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="keep the results of one size here, and repeat none that is there")
    parser.add_argument("--again", action="store_true", help="repeat what the file holds")
    args = parser.parse_args(argv)
    crops = pictures.test_set(args.pictures, args.size)
    if args.fit:
        found = fitted(pictures.tuning_set(args.tuning, args.size), crops, args.sigmas)
        print("\n".join(fit_lines(found)))
    else:
        kept = {} if args.again else kept_rows(args.json, args.size)
        found = []
        for name, clean in crops.items():
            for sigma in args.sigmas:
                print(f"{name}, sigma {sigma:g}", file=sys.stderr, flush=True)
                found.append(measure(Trial(name, clean, sigma), args.rules, kept.get((name, sigma))))
        print("\n".join(lines(found)))
    if args.json and args.fit:
        oracle.save(args.json, "fit", {"size": args.size, "sigmas": args.sigmas, "rows": found})
    elif args.json:
        rows = kept_rows(args.json, args.size) | {(row["picture"], row["sigma"]): row for row in found}
        oracle.save(args.json, "losses", {"size": args.size, "rows": list(rows.values())})
    return 0


if __name__ == "__main__":
    sys.exit(main())
