"""This writes tests/data/neural_tangents.json: kernels by ``neural_tangents`` 0.6.5 in float64, to compare conventions.

``python -m bench.peers.neural_tangents_conventions`` uses the environment of ``bench.peers.neural_tangents`` and makes
it if it is not there.  The table holds, for each network of ``NETWORKS``, some whole rows of the tangent and of the
NNGP kernel on one small image; tests/test_neural_tangents.py compares them with ``ntkfast.reference``.

The conventions of the two differ in these points, and this is done about it here:

- *axes*: the peer stores (1, 1, H, H, W, W), and every convolution swaps the two spatial axes; its ``Kernel`` object
  says which way they stand (``is_reversed``).  Its ``ImageResize`` does not look at that: it is right only after an
  even number of convolutions, or on square images.  The networks here keep to the former.
- *variances*: ``W_std = sqrt(w)``, ``b_std = sqrt(b)``.
- *padding*: ``"SAME"`` is ``"zeros"``, ``"CIRCULAR"`` is ``"circular"``.
- *stride 2*: on an even number of pixels, ``"SAME"`` and ``"CIRCULAR"`` with kernels of 3 and more keep the positions
  2i + 1, as XLA and TensorFlow do, where ntkfast and torch (``padding=k//2``) keep 2i; with a 1x1 kernel both keep 2i.
  The other positions are the same ones on an image that is turned by 180 degrees, so it is turned here, and the result
  turned back.
- *average pool*: ``AvgPool((2, 2), strides=(2, 2), padding="VALID")``.  Cells do not reach over the edge, so that its
  ``normalize_edges`` has no effect.
- *up-sampling*: ``ImageResize``, ``"nearest"`` and ``"bilinear"``.  It clamps at the border whatever the padding of the
  convolutions; for circular networks ntkfast's bilinear wraps, so only nearest is compared there.
- *add*: the peer takes only sums of two Gaussian fields, and does not ask whether they are independent.
- *concat*: shares are those of the numbers of channels, which the peer takes from its convolutions.
- *frozen layers*: the peer has none.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

import ntkfast as nf
from bench import machine
from bench.peers._neural_tangents import PADDINGS, add_environment, interpreter_of, run_peer, translate

WORKER = Path(__file__).with_name("_neural_tangents_conventions_worker.py")
TABLE = machine.ROOT / "tests" / "data" / "neural_tangents.json"
SHAPE = (4, 6, 2)
ROWS = (0, 8, 15, 23)  # two corners, and two pixels inside of which no symmetry of the grid maps one to the other


def pointwise(activation: Any) -> nf.Network:
    """Return one hidden layer; weights and biases of both convolutions differ, so that no factor can hide."""
    return nf.Network([nf.Conv(3, weight_var=1.5, bias_var=0.2), activation, nf.Conv(3, weight_var=0.7, bias_var=0.1)])


def resampled(down: Sequence[Any], up: Any, padding: str = "zeros") -> nf.Network:
    """Return down, a hidden layer at half the resolution, and up again after an even number of convolutions."""
    return nf.Network([*down, nf.Conv(3, bias_var=0.3), nf.ReLU(), up, nf.Conv(3)], padding)


BILINEAR, NEAREST = nf.Upsample(), nf.Upsample(mode="nearest")
POOLED = (nf.Conv(3), nf.ReLU(), nf.AvgPool())
NETWORKS = {
    "one convolution": nf.Network([nf.Conv(3, weight_var=1.5, bias_var=0.4)]),
    "one convolution, circular": nf.Network([nf.Conv(5, weight_var=1.5)], "circular"),
    "ReLU": pointwise(nf.ReLU()),
    "ReLU, circular": nf.vanilla_cnn(1, 3, padding="circular"),
    "two hidden layers": nf.vanilla_cnn(2, 3),
    "leaky ReLU": pointwise(nf.LeakyReLU(0.1)),
    "Abs": pointwise(nf.Abs()),
    "Erf": pointwise(nf.Erf()),
    "GELU": pointwise(nf.GELU()),
    "Sin": pointwise(nf.Sin()),
    "Cos": pointwise(nf.Cos()),
    "average pool, bilinear": resampled(POOLED, BILINEAR),
    "average pool, nearest": resampled(POOLED, NEAREST),
    "average pool, nearest, circular": resampled(POOLED, NEAREST, "circular"),
    "average pool before the activation": resampled([nf.Conv(3, bias_var=0.5), nf.AvgPool(), nf.ReLU()], BILINEAR),
    "stride 2 of 3x3": resampled([nf.Conv(3, stride=2, bias_var=0.5), nf.ReLU()], BILINEAR),
    "stride 2 of 1x1": resampled([nf.Conv(1, stride=2), nf.ReLU()], NEAREST),
    "stride 2 of 5x5, circular": resampled([nf.Conv(5, stride=2), nf.ReLU()], NEAREST, "circular"),
    "residual": nf.Network(
        [nf.Conv(3), nf.Skip([nf.ReLU(), nf.Conv(3, bias_var=0.2)], merge="add"), nf.ReLU(), nf.Conv(1)]
    ),
    "residual with a convolution as shortcut": nf.Network(
        [
            *(nf.Conv(3), nf.ReLU()),
            nf.Skip([nf.Conv(3), nf.ReLU(), nf.Conv(3)], merge="add", shortcut=[nf.Conv(1, weight_var=1.0)]),
            *(nf.ReLU(), nf.Conv(3)),
        ],
        "circular",
    ),
    "concat": nf.Network([nf.Conv(3), nf.ReLU(), nf.Skip([nf.Conv(3), nf.ReLU()]), nf.Conv(3)]),
    "concat, share 1/5": nf.Network(
        [nf.Conv(3), nf.ReLU(), nf.Skip([nf.Conv(3), nf.Erf()], share=0.2), nf.Conv(3)], "circular"
    ),
    "autoencoder": nf.autoencoder(1, upsample="bilinear"),
    "U-Net": nf.unet(1, upsample="bilinear"),
    "U-Net, circular": nf.unet(1, upsample="nearest", padding="circular"),
}


def case(network: nf.Network) -> dict[str, Any]:
    """Return one network as the worker takes it."""
    flip = any(conv.stride == 2 and conv.kernel_size > 1 for conv in network.convs)
    return {"layers": translate(network.layers), "padding": PADDINGS[network.padding], "flip": flip}


def write(path: Path, image: np.ndarray, result: dict[str, Any]) -> None:
    """Write one line for each row of a kernel, with all digits."""
    head = {"made by": "python -m bench.peers.neural_tangents_conventions", "versions": result["versions"]}
    head |= {"image": image.tolist(), "rows": ROWS}
    lines = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    networks = []
    for name, kernels in result["kernels"].items():
        entry = [f'"network": {json.dumps(repr(NETWORKS[name]))}']
        for kind, kernel in kernels.items():
            rows = ",\n".join(json.dumps(kernel[row]) for row in ROWS)
            entry.append(f'"{kind}": [\n{rows}\n]')
        networks.append(f"{json.dumps(name)}: {{\n" + ",\n".join(entry) + "\n}")
    lines.append('"networks": {\n' + ",\n".join(networks) + "\n}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_environment(parser)
    parser.add_argument("--output", type=Path, default=TABLE)
    args = parser.parse_args()
    interpreter = interpreter_of(args)
    image = np.random.default_rng(0).standard_normal(SHAPE).round(3)
    job = {
        "dtype": "float64",
        "image": image.tolist(),
        "cases": {name: case(network) for name, network in NETWORKS.items()},
    }
    with tempfile.TemporaryDirectory() as folder:
        result = run_peer(interpreter, job, Path(folder), WORKER)
    write(args.output, image, result)
    print(f"{args.output}: {len(NETWORKS)} networks, {args.output.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
