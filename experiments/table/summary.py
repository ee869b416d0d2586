"""The pictures come to means with their spread, and differences of two methods picture by picture."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from experiments.architectures import ARCHITECTURES, INPUTS
from experiments.experiment import Record, Summary
from experiments.table.measure import ANY_TIME, REFINED

METHODS = {
    "gd": "gradient descent",
    "exact": "NTK, exact",
    "nystrom": "NTK, Nystrom",
    "adam": "Adam",
}
MORE = {ANY_TIME: "NTK, exact, any t", REFINED: "NTK, exact, refined"}  # further rows of the table
PEERS = {"noisy": "noisy image", "nlm": "non-local means", "bm3d": "CBM3D"}
DISTANCE = "distance"  # that of the output of gradient descent to the exact kernel's

Key = tuple[str, ...]  # (method, network, input), or (peer,)


def summarize(records: list[Record]) -> Summary:
    """Sizes, means over the pictures that have everything, and Adam less gradient descent; empty without such."""
    names = complete(records)
    if not names:
        return {}
    networks = [record.settings for record in records if "network" in record.settings]
    sizes = ("side", "reduction", "most_steps", "any_time_steps", "landmarks")
    return {
        "pictures": names,
        **{size: networks[0][size] for size in sizes},
        "seeds": len({settings["seed"] for settings in networks}),
        "widths": {settings["network"]: settings["width"] for settings in networks},
        "means": {"/".join(key): _entry(records, key, mean) for key, mean in means(records).items()},
        "adam_less_gd": {
            f"{network}/{source}": {
                name: _kept(paired(records, "adam", "gd", network, source, before_the_last=cut))
                for name, cut in (("all", False), ("before_the_last_step", True))
            }
            for network in ARCHITECTURES
            for source in INPUTS
        },
    }


def _kept(differences: Paired | None) -> dict[str, Any] | None:
    return None if differences is None else asdict(differences)


def _entry(records: Sequence[Record], key: Key, mean: Mean) -> dict[str, Any]:
    """A mean, and [results whose best step is the last that was looked at, results]."""
    entry: dict[str, Any] = asdict(mean)
    if key[0] in METHODS | MORE:
        cut = cut_off(records, *key)
        entry["last_allowed"] = [sum(cut), len(cut)]
    return entry


@dataclass(frozen=True)
class Mean:
    """Mean of a method's figures over pictures and seeds, and their spread.

    Attributes
    ----------
    mean : float
        Over the pictures of the means over their seeds.
    pictures : float
        Standard deviation over the pictures of these means; nan with one picture.
    seeds : float
        Standard deviation over the seeds of a picture, root of the mean square over the pictures; nan with one seed.
    """

    mean: float
    pictures: float
    seeds: float


def averaged(values: Mapping[str, Sequence[float]]) -> Mean:
    """Mean and spread of figures, given by picture for each seed."""
    means = [float(np.mean(of_seeds)) for of_seeds in values.values()]
    variances = [float(np.var(of_seeds, ddof=1)) for of_seeds in values.values() if len(of_seeds) > 1]
    return Mean(
        float(np.mean(means)),
        float(np.std(means, ddof=1)) if len(means) > 1 else float("nan"),
        float(np.sqrt(np.mean(variances))) if variances else float("nan"),
    )


def complete(records: Sequence[Record]) -> list[str]:
    """Pictures that have a result of every network, input and seed, and of the peers: all means are over these."""
    seeds = {record.settings["seed"] for record in records if "network" in record.settings}
    needed: set[Any] = {(network, source, seed) for network in ARCHITECTURES for source in INPUTS for seed in seeds}
    found: dict[str, set[Any]] = {}
    for record in records:
        case = tuple(record.settings.get(key) for key in ("network", "input", "seed"))
        found.setdefault(record.settings["picture"], set()).add(case)
    needed.add((None, None, None))
    return [name for name, cases in found.items() if seeds and needed <= cases]


def means(records: Sequence[Record]) -> dict[Key, Mean]:
    """Means by (method, network, input), and by (peer,)."""
    names = complete(records)
    values: dict[Key, dict[str, list[float]]] = {}
    for record in records:
        settings = record.settings
        if settings["picture"] not in names:
            continue
        if "network" in settings:
            measured = [name for name in (*METHODS, *MORE, DISTANCE) if name in record.values]
            keys: list[Key] = [(name, settings["network"], settings["input"]) for name in measured]
        else:
            keys = [(peer,) for peer in PEERS if peer in record.values]
        for key in keys:
            values.setdefault(key, {}).setdefault(settings["picture"], []).append(record.values[key[0]])
    # A peer that was left out for some of the pictures has no mean that compares with the others.
    return {key: averaged(of_key) for key, of_key in values.items() if set(of_key) == set(names)}


@dataclass(frozen=True)
class Paired:
    """Differences of two methods on the same pictures and seeds.

    Attributes
    ----------
    mean, error : float
        Over the pictures of the means over their seeds, and the standard error of it; nan with one picture.
    won, pictures : int
        Those on which the first method is better, and all.
    """

    mean: float
    error: float
    won: int
    pictures: int

    def __str__(self) -> str:
        spread = "" if math.isnan(self.error) else f" ± {self.error:.2f}"
        return f"{self.mean:+.2f}{spread} dB, better on {self.won} of {self.pictures}"


def paired(
    records: Sequence[Record], first: str, second: str, network: str, source: str, *, before_the_last: bool = False
) -> Paired | None:
    """PSNR of one method less another's; None without results.

    ``before_the_last`` leaves out what the limit on the steps may have cut off: runs in which the best step of either
    method is the last one.
    """
    names = complete(records)
    differences: dict[str, list[float]] = {}
    for record in records:
        case = (record.settings.get("network"), record.settings.get("input"))
        if case != (network, source) or record.settings["picture"] not in names:
            continue
        last = record.settings.get("most_steps")
        if before_the_last and last in (record.values.get(f"{method}_steps") for method in (first, second)):
            continue
        of_picture = differences.setdefault(record.settings["picture"], [])
        of_picture.append(record.values[first] - record.values[second])
    if not differences:
        return None
    found = averaged(differences)
    won = sum(np.mean(of_seeds) > 0 for of_seeds in differences.values())
    return Paired(found.mean, found.pictures / float(np.sqrt(len(differences))), int(won), len(differences))


def cut_off(records: Sequence[Record], method: str, network: str, source: str) -> list[bool]:
    """Tell whether the best step was the last one looked at, for the complete pictures and all seeds of a case."""
    allowed, names = "any_time_steps" if method == ANY_TIME else "most_steps", complete(records)
    return [
        record.values[f"{method}_steps"] == record.settings[allowed]
        for record in records
        if (record.settings.get("network"), record.settings.get("input")) == (network, source)
        and record.settings["picture"] in names
        and f"{method}_steps" in record.values
    ]
