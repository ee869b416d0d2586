"""Kernels of an independent implementation, neural_tangents 0.6.5 in float64, must agree with the reference.

bench/peers/neural_tangents_conventions.py wrote the table and says where the conventions of the two differ.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import ntkfast
from ntkfast.reference import kernel_matrix

TABLE = json.loads((Path(__file__).parent / "data" / "neural_tangents.json").read_text())
IMAGE, ROWS = np.array(TABLE["image"]), TABLE["rows"]
NAMES = {name: getattr(ntkfast, name) for name in ntkfast.__all__}


@pytest.mark.parametrize("kernel", ["ntk", "nngp"])
@pytest.mark.parametrize("name", TABLE["networks"])
def test_rows_equal_those_of_neural_tangents(name, kernel):
    entry = TABLE["networks"][name]
    network = eval(entry["network"], {}, NAMES)
    expected = np.array(entry[kernel])
    assert expected.shape == (len(ROWS), IMAGE.shape[0] * IMAGE.shape[1])
    np.testing.assert_allclose(
        kernel_matrix(network, IMAGE, kernel, channel_axis=-1)[ROWS], expected, rtol=1e-12, atol=0
    )
