"""The changes of the weights come to powers of the width."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from experiments.architectures import LABELS
from experiments.experiment import Record, Summary
from experiments.fits import PowerLaw, power_law, slope_of
from experiments.weights.measure import EARLIER, NORMS, OPTIMIZERS

KINDS = {"first": "first layer", "hidden": "hidden layers", "last": "last layer"}
STEPS, LOSS = "steps", "loss"  # where the changes are taken, the same for all widths
CONVENTIONS = {"gd": (STEPS, LOSS), "adam": (STEPS, LOSS, *map(str, EARLIER))}


def summarize(records: list[Record]) -> Summary:
    """The slopes by optimizer and architecture, and the trainings that did not reach the loss."""
    missed = [record for record in records if record.values["reached"] is None]
    cases = [(r.settings["architecture"], r.settings["optimizer"]) for r in missed]
    return {
        "networks": len(records),
        "missed": {"networks": len(missed), "cases": list(dict.fromkeys(cases))},
        "slopes": {
            optimizer: {name: _case(records, name, optimizer) for name in LABELS if _any(records, name, optimizer)}
            for optimizer in OPTIMIZERS
        },
    }


def _any(records: Sequence[Record], architecture: str, optimizer: str) -> bool:
    return any(chosen(records, architecture, optimizer, convention) for convention in CONVENTIONS[optimizer])


def _case(records: Sequence[Record], architecture: str, optimizer: str) -> dict[str, Any]:
    """Exponents, with their standard errors, of an architecture under an optimizer."""
    found: dict[str, Any] = {}
    for convention in CONVENTIONS[optimizer]:
        own = chosen(records, architecture, optimizer, convention)
        if own:
            laws = {norm: {kind: slope_of(law(own, convention, norm, kind)) for kind in KINDS} for norm in NORMS}
            found[convention] = {"taken": _steps(own, convention), **laws}
    own = chosen(records, architecture, optimizer, LOSS)
    if own:
        found |= {"to_loss": slope_of(steps_law(own)), "linf_over_log": slope_of(law_over_log(own))}
        found["hidden_l2_at_loss"] = _means(*changes_of(own, LOSS, "l2", "hidden"))
        found["layers"] = _layers(own)
    return found


def _steps(records: Sequence[Record], convention: str) -> list[float]:
    """Fewest and most steps that were taken until then."""
    known = {STEPS: "common_steps", LOSS: "reached"}
    taken = [r.values[known[convention]] if convention in known else int(convention) for r in records]
    return [min(taken), max(taken)]


def _means(widths: Sequence[int], changes: Sequence[float]) -> dict[int, float]:
    """Mean change by width."""
    return {
        width: float(np.mean([change for own, change in zip(widths, changes, strict=True) if own == width]))
        for width in sorted(set(widths))
    }


def _layers(records: Sequence[Record]) -> list[list[Any]]:
    """Kind and slopes of every convolution at the same loss, in the order of the network."""
    names = list(records[0].values["change"][LOSS]["l2"])
    kind_of = {name: kind for kind, of_kind in kinds(names).items() for name in of_kind}
    return [[kind_of[name], *(slope_of(layer_law(records, norm, name)) for norm in NORMS)] for name in names]


def kinds(names: Sequence[str]) -> dict[str, list[str]]:
    """Convolutions, named in the order of the network, by kind."""
    return {"first": [names[0]], "hidden": list(names[1:-1]), "last": [names[-1]]}


def combined(changes: Sequence[float], norm: str) -> float:
    """The norm of several layers together, from the norms of each."""
    return float(np.linalg.norm(changes, 2 if norm == "l2" else np.inf))


def chosen(records: Sequence[Record], architecture: str, optimizer: str, convention: str) -> list[Record]:
    """Those of an architecture and an optimizer that reached the loss, or the number of steps."""
    return [
        r
        for r in records
        if r.settings["architecture"] == architecture
        and r.settings["optimizer"] == optimizer
        and r.values["change"][convention] is not None
    ]


def changes_of(records: Sequence[Record], convention: str, norm: str, kind: str) -> tuple[list[int], list[float]]:
    """Widths, and changes of all layers of a kind together."""
    layers = [r.values["change"][convention][norm] for r in records]
    changes = [combined([change[name] for name in kinds(list(change))[kind]], norm) for change in layers]
    return [r.settings["width"] for r in records], changes


def law(records: Sequence[Record], convention: str, norm: str, kind: str) -> PowerLaw | None:
    """The change over the width, for what is chosen of the records."""
    return power_law(*changes_of(records, convention, norm, kind))


def layer_law(records: Sequence[Record], norm: str, layer: str) -> PowerLaw | None:
    """The change of one convolution until the loss over the width."""
    changes = [r.values["change"][LOSS][norm][layer] for r in records]
    return power_law([r.settings["width"] for r in records], changes)


def steps_law(records: Sequence[Record]) -> PowerLaw | None:
    """The number of steps to the loss over the width."""
    return power_law([r.settings["width"] for r in records], [r.values["reached"] for r in records])


def law_over_log(records: Sequence[Record]) -> PowerLaw | None:
    """The largest change of the hidden weights until the loss, over log c."""
    widths, values = changes_of(records, LOSS, "linf", "hidden")
    return power_law(widths, [v / np.log(w) for w, v in zip(widths, values, strict=True)])
