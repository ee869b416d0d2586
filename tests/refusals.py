"""This is how tests expect a refusal."""

from __future__ import annotations

import re

import pytest
from hypothesis import settings

NAN, INF = float("nan"), float("inf")
deterministic = settings(deadline=None, derandomize=True, max_examples=50)


def refused(error: type[Exception], *parts: str):
    """Expect ``error`` with a message that holds all ``parts``, in this order."""
    return pytest.raises(error, match="(?s)" + ".*".join(map(re.escape, parts)))
