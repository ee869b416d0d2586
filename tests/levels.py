"""These are the instruction sets that the tests of the engine go through, and the axes of their parameters."""

from __future__ import annotations

import pytest

from ntkfast import _core
from ntkfast.engine.cpu import isa as chosen_isa

ISAS = _core.supported_isas()
each_isa = pytest.mark.parametrize("isa", ISAS)


def use_isa(monkeypatch, isa):
    monkeypatch.setenv("NTKFAST_ISA", isa)
    assert chosen_isa() == isa
