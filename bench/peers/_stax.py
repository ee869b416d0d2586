"""The workers make our layers in ``neural_tangents.stax`` with this, in the peer's own environment."""

from __future__ import annotations

from typing import Any

import jax
import jaxlib
import neural_tangents
import numpy as np
from neural_tangents import stax

ACTIVATIONS = {
    "ReLU": stax.Relu,
    "LeakyReLU": stax.LeakyRelu,
    "Abs": stax.Abs,
    "Erf": stax.Erf,
    "GELU": stax.Gelu,
    "Sin": stax.Sin,
    "Cos": stax.Cos,
}


def build(layers: list[Any], padding: str, height: int, width: int) -> tuple[Any, int, int]:
    """Return the stax layer of a list of [name, arguments], and the height and width that it ends with."""
    built = []
    for name, args in layers:
        if name == "Conv":
            stride = args["stride"]
            built.append(
                stax.Conv(
                    args["channels"],
                    (args["kernel_size"],) * 2,
                    strides=(stride, stride),
                    padding=padding,
                    W_std=args["weight_var"] ** 0.5,
                    b_std=args["bias_var"] ** 0.5,
                )
            )
            height, width = height // stride, width // stride
        elif name == "AvgPool":
            built.append(stax.AvgPool((2, 2), strides=(2, 2), padding="VALID"))
            height, width = height // 2, width // 2
        elif name == "Upsample":
            height, width = 2 * height, 2 * width
            built.append(stax.ImageResize((-1, height, width, -1), args["mode"]))
        elif name in ("add", "concat"):
            shortcut, _, _ = build(args["shortcut"], padding, height, width)
            branch, height, width = build(args["branch"], padding, height, width)
            merge = stax.FanInSum() if name == "add" else stax.FanInConcat(-1)
            built.append(stax.serial(stax.FanOut(2), stax.parallel(shortcut, branch), merge))
        else:
            built.append(ACTIVATIONS[name](**args))
    return (stax.serial(*built) if built else stax.Identity()), height, width


def as_matrix(field: np.ndarray, is_reversed: bool) -> np.ndarray:
    """Return (1, 1, H, H, W, W), or (1, 1, W, W, H, H) where the peer says so, as (d, d)."""
    field = field[0, 0].transpose((2, 0, 3, 1) if is_reversed else (0, 2, 1, 3))
    d = field.shape[0] * field.shape[1]
    return np.ascontiguousarray(field).reshape(d, d)


def versions() -> dict[str, str]:
    """Return the versions of the peer and of what it stands on."""
    packages = {"neural-tangents": neural_tangents, "jax": jax, "jaxlib": jaxlib, "numpy": np}
    return {name: package.__version__ for name, package in packages.items()}
