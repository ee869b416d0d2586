"""The CUDA engine from Python: which cards there are, which of them to take, and what fits there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import _core
from .._choices import DEVICE
from ..network import Network
from . import cpu as _engine
from .arrays import Arrays

DEVICES = "'auto', 'cpu', 'cuda' or 'cuda:N'"

# Pair-layers of one product from which device="auto" takes a card: one hidden layer at 128 x 128, a tenth of a second
# on two cores.  An estimate, not a measurement: below it a CPU takes less time than starting a card does (some tenths
# of a second, once in a process).  To be replaced when a card has been measured: bench/gpu_check.sh.
AUTO_PAIR_LAYERS = 1e8


@dataclass(frozen=True)
class Device:
    """A card.

    Attributes
    ----------
    name : str
    capability : (int, int)
        Compute capability.
    multiprocessors : int
    bytes, free_bytes : int
        Of its memory; what is free changes.
    """

    name: str
    capability: tuple[int, int]
    multiprocessors: int
    bytes: int
    free_bytes: int


def devices() -> list[Device]:
    """The cards that can be used."""
    return [Device(*device) for device in _core.cuda_devices()]


def info() -> dict[str, Any]:
    """What the build and the machine have of CUDA, for bug reports."""
    cards = devices()
    return {
        "devices": ["cpu", *(f"cuda:{n}" for n in range(len(cards)))],
        "cuda": _core.cuda_backend(),
        "cuda_architectures": _core.cuda_architectures() or "none",
        "cuda_compiler": _core.cuda_compiler() or "none",
        "cuda_driver": _core.cuda_driver() or "none",
        "cuda_cards": [
            f"{n}: {card.name}, compute capability {card.capability[0]}.{card.capability[1]}, "
            f"{card.multiprocessors} multiprocessors, {_engine.readable(card.bytes)}"
            for n, card in enumerate(cards)
        ]
        or f"none: {_core.cuda_why_unavailable()}",
    }


def choose(
    device: Any,
    network: Network,
    shape: tuple[int, int, int, int],
    *,
    kernel: str,
    dtype: np.dtype[Any],
    image_device: int | None,
) -> int | None:
    """The card that ``device`` stands for; None for the CPU.

    Parameters
    ----------
    device : str
        "auto", "cpu", "cuda" or "cuda:N".
    network, kernel, dtype
        As of NTK.
    shape : (batch, H, W, C)
    image_device : int or None
        The card that holds the caller's image: "cuda" is that one, and "auto" too, since what is applied to will lie
        there.  Otherwise "cuda" is card 0.

    Raises
    ------
    TypeError, ValueError
        If ``device`` is none of these, or N is no card.
    RuntimeError
        If there is no card: with what is missing.
    """
    if not isinstance(device, str):
        raise TypeError(f"device must be {DEVICES}, got {device!r}")
    match = re.fullmatch(DEVICE, device)
    if match is None:
        raise ValueError(f"device must be {DEVICES}, got {device!r}")
    if device == "cpu":
        return None
    if device == "auto":
        return _worthwhile(network, shape, kernel, dtype) if image_device is None else image_device
    cards = devices()
    if not cards:
        raise RuntimeError(f"device={device!r} cannot be used: {_core.cuda_why_unavailable()}; or use device='cpu'")
    number = match[1]
    if number is None:
        return image_device or 0
    if int(number) >= len(cards):
        raise ValueError(f"device must name a card from 'cuda:0' to 'cuda:{len(cards) - 1}', got {device!r}")
    return int(number)


def _worthwhile(network: Network, shape: tuple[int, int, int, int], kernel: str, dtype: np.dtype[Any]) -> int | None:
    """Card 0 if there is one, the problem is large enough to gain from it, and fits."""
    pairs = (shape[1] * shape[2]) ** 2 / 2
    layers = max(1, len(network.convs) - 1)
    if _core.cuda_backend() != "cuda" or pairs * layers < AUTO_PAIR_LAYERS:
        return None
    cards = devices()
    if not cards:
        return None
    parts = estimate(network, shape, kernel=kernel, columns=3, dtype=dtype, device=0)
    return 0 if _engine.peaks(parts)["stream"] <= cards[0].free_bytes else None


def make(
    network: Network,
    image: np.ndarray,
    *,
    noise: bool = False,
    kernel: str,
    dtype: np.dtype[Any],
    threads: int,
    device: int,
) -> Any:
    """Compiled engine on a card for one image, float64 of shape (1, H, W, C); of noise only the shape is read."""
    engine = _core.CudaEngineFloat32 if dtype == np.float32 else _core.CudaEngineFloat64
    return engine(
        *_engine.problem(network, kernel),
        np.ascontiguousarray(image, dtype=np.float64),
        noise,
        device=device,
        threads=threads,
    )


def estimate(
    network: Network,
    shape: tuple[int, int, int, int],
    *,
    kernel: str,
    columns: int,
    dtype: np.dtype[Any],
    device: int,
) -> dict[str, int]:
    """Bytes of a card's memory, by part, as ``_engine.estimate``."""
    function = _core.cuda_estimate_float32 if dtype == np.float32 else _core.cuda_estimate_float64
    return _engine.named_parts(function(*_engine.problem(network, kernel), shape, columns, device))


def available_memory(device: int) -> int:
    """Free bytes of a card's memory."""
    return devices()[device].free_bytes


def product(engine: Any, arrays: Arrays, v: Any, progress: _engine.Progress | None = None) -> Any:
    """Theta v for v (d, n) in the memory of the engine's card, of its dtype: an array of the same kind there."""
    with arrays.current():
        v = arrays.contiguous(v)
        out = arrays.empty_like(v)
        engine.product_on_device(arrays.address(v), arrays.address(out), stream=arrays.stream(), progress=progress)
        return out


class TileEngines:
    """One engine on a card for each of several tiles, all of them stored.

    Parameters
    ----------
    network, dtype, threads, device
        As of ``make``.
    tiles : ndarray, shape (count, h, w, C)
    """

    def __init__(self, network: Network, tiles: np.ndarray, *, dtype: np.dtype[Any], threads: int, device: int) -> None:
        made_of: dict[str, Any] = {"kernel": "ntk", "dtype": dtype, "threads": threads, "device": device}
        self._engines = [make(network, tile[None], **made_of) for tile in tiles]

    @staticmethod
    def at_once(
        network: Network, shape: tuple[int, int, int], *, columns: int, dtype: np.dtype[Any], device: int, most: int
    ) -> int:
        """How many tiles of a shape (h, w, C) fit on the card at a time, up to ``most``.

        Raises
        ------
        MemoryError
            If not one does.
        """
        parts = estimate(network, (1, *shape), kernel="ntk", columns=columns, dtype=dtype, device=device)
        one = _engine.peaks(parts)["dense"]
        free = available_memory(device)
        hint = "use a smaller tile_size, or device='cpu'"
        _engine.require_memory("one tile", one, hint, available=free, where=f" on cuda:{device}")
        return min(most, free // one)

    def diagonal(self) -> np.ndarray:
        """Theta(i, i) of every tile, (d, count)."""
        return np.concatenate([engine.diagonal() for engine in self._engines], axis=1)

    def store(self) -> None:
        for engine in self._engines:
            engine.store()

    def product(self, arrays: Arrays, v: Any) -> Any:
        """Theta V of every tile, (count, d, n); an array like v, of the host or of the card."""
        if arrays.device is None:
            return np.stack(
                [
                    engine.product(np.ascontiguousarray(part)[:, :, None])[:, :, 0]
                    for engine, part in zip(self._engines, v, strict=True)
                ]
            )
        return arrays.stack([product(engine, arrays, v[n]) for n, engine in enumerate(self._engines)])
