"""Results on disk: results.json, written at once after each unit, and one npz file per unit with arrays."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
import importlib.metadata
import json
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from bench import machine

from experiments.experiment import Record, Result, Unit, Work


class FolderError(ValueError):
    """A folder of results cannot be used; the message says why and what to do."""


# Each entry of a result has one of these types in JSON.
ENTRY: dict[str, tuple[type, ...]] = {
    "fingerprint": (str,),
    "settings": (dict,),
    "values": (dict,),
    "arrays": (str, type(None)),
    "seconds": (int, float),
    "machine": (str,),
    "commit": (str,),
    "date": (str,),
}


class Store:
    """The results in a folder.

    Attributes
    ----------
    folder : Path
        Holds results.json and arrays/.
    name : str
        Of the file of results, if it is another.
    arrays : bool
        Whether results count only with their arrays and the settings that this machine would give them; a file alone,
        from wherever it is, does for claims and tables, not for figures.

    Raises
    ------
    FolderError
        If results.json is there and cannot be read; the message names it.
    """

    def __init__(self, folder: Path, name: str = "results.json", *, arrays: bool = True) -> None:
        self.folder = folder
        self._path = folder / name
        self._with_arrays = arrays
        self._kept: dict[str, Any] = {"machines": {}, "results": {}}
        if self._path.exists():
            self._kept = _read(self._path)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keeps the folder for this process, since two would overwrite each other's results.json.

        The lock is the system's, which drops it with the process however that ends: none is left behind.

        Raises
        ------
        FolderError
            If another process has it.
        """
        import fcntl

        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                message = f"another run is writing to {self.folder}; wait for it or give another --out"
                raise FolderError(message) from None
            if self._path.exists():
                self._kept = _read(self._path)  # another run may have written since this one looked
            yield

    def get(self, work: Work, unit: Unit) -> Record | None:
        """The result kept of the unit, if it is of the same settings and version."""
        entry = self._kept["results"].get(work.key(unit))
        if entry is not None and not self._with_arrays:
            unit = Unit(unit.key, entry["settings"])
        if entry is None or entry["fingerprint"] != work.fingerprint(unit):
            return None
        file = entry["arrays"] if self._with_arrays else None
        if file is not None and not zipfile.is_zipfile(self.folder / file):
            return None  # results.json alone was copied, or the file is cut off
        load = dict if file is None else partial(_load, self.folder / file)
        return Record(unit.key, unit.settings, entry["values"], entry["seconds"], load)

    def records(self, work: Work, units: list[Unit]) -> list[Record]:
        """Results kept, in the order of the units."""
        found = (self.get(work, unit) for unit in units)
        return [record for record in found if record is not None]

    def put(self, work: Work, unit: Unit, result: Result, seconds: float, device: str) -> None:
        """Keeps a result, with the machine, the commit and the date, in place of the one before."""
        key, fingerprint = work.key(unit), work.fingerprint(unit)
        file = None
        if result.arrays:
            file = f"arrays/{key.replace('/', '_')}_{fingerprint}.npz"
            replace_file(self.folder / file, lambda part: _save(part, result.arrays))
        description = machine.description()
        commit = description.pop("commit")
        del description["date"]
        description["versions"]["torch"] = importlib.metadata.version("torch")
        description["device"] = device_name(device if result.device is None else result.device)
        name = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:8]
        self._kept["machines"][name] = description
        self._kept["results"][key] = {
            "fingerprint": fingerprint,
            "settings": unit.settings,
            "values": result.values,
            "arrays": file,
            "seconds": round(seconds, 3),
            "machine": name,
            "commit": commit,
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        }
        text = json.dumps(self._kept, indent=1, allow_nan=False) + "\n"
        replace_file(self._path, lambda part: part.write_text(text))

    def origin(self, work: Work, units: list[Unit]) -> dict[str, Any]:
        """Machines, commits, days and seconds of the results kept of these units."""
        entries = [self._kept["results"][work.key(unit)] for unit in units if self.get(work, unit)]
        names = sorted({entry["machine"] for entry in entries})
        return {
            "machines": [self._kept["machines"][name] for name in names],
            "commits": sorted({entry["commit"] for entry in entries}),
            "days": sorted({entry["date"][:10] for entry in entries}),
            "seconds": sum(entry["seconds"] for entry in entries),
            "units": len(entries),
        }


def _read(path: Path) -> dict[str, Any]:
    """The content of results.json."""
    try:
        kept = json.loads(path.read_text())
    except ValueError as error:  # no JSON, or no text
        raise FolderError(f"{path} is damaged ({error}); move it away to start anew") from None
    wrong = _wrong(kept)
    if wrong:
        raise FolderError(f"{path} is damaged or no file of results ({wrong}); move it away to start anew")
    return dict(kept)


def _wrong(kept: Any) -> str:
    """Name what is not as :meth:`Store.put` leaves it; empty if nothing is."""
    for name in ("machines", "results"):
        if not isinstance(kept, dict) or not isinstance(kept.get(name), dict):
            return f"it has no {name}"
        if not all(isinstance(entry, dict) for entry in kept[name].values()):
            return f"an entry of {name} is of another kind"
    for key, entry in kept["results"].items():
        for name, types in ENTRY.items():
            if name not in entry or not isinstance(entry[name], types) or isinstance(entry[name], bool):
                return f"{name} of {key} is missing or of another kind"
        if entry["machine"] not in kept["machines"]:
            return f"the machine of {key} is not among those described"
    return ""


def device_name(device: str) -> str:
    """Name of a device of PyTorch: that of the card for "cuda", else as it is."""
    if not device.startswith("cuda"):
        return device
    import torch  # pragma: no cover - no card where tests run

    return torch.cuda.get_device_name(device)  # pragma: no cover


def _load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as arrays:
        return dict(arrays)


def _save(path: Path, arrays: dict[str, np.ndarray]) -> None:
    with path.open("wb") as file:
        names: dict[str, Any] = dict(arrays)  # one of them might be called as an option is
        np.savez_compressed(file, **names)


def replace_file(path: Path, write: Callable[[Path], Any]) -> None:
    """Writes a file at once: who is stopped meanwhile keeps the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    write(part)
    part.replace(path)
