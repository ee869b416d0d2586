"""A user's script passes mypy's strict mode, and what its calls return is known."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import ntkfast

SCRIPT = Path(__file__).with_name("typed_script.py")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of what mypy has read, which takes it half a minute."""
    return tmp_path_factory.mktemp("mypy")


def mypy(script: Path, cache: Path) -> subprocess.CompletedProcess[str]:
    """Run mypy as a user would, with no settings of the project; it reads the package that the tests import."""
    folder = Path(ntkfast.__file__).parent.parent
    # An installed package is found without being told, and mypy refuses to be told.
    where = {} if folder == Path(sysconfig.get_path("platlib")) else {"MYPYPATH": str(folder)}
    command = [sys.executable, "-m", "mypy", "--strict", "--config-file", os.devnull, "--ignore-missing-imports"]
    # Untyped SciPy is the base of every operator, which a user cannot help.
    command += ["--follow-imports", "silent", "--cache-dir", str(cache), str(script)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | where, check=False)


def test_a_typed_script_passes(cache: Path) -> None:
    pytest.importorskip("mypy")
    pytest.importorskip("torch")
    done = mypy(SCRIPT, cache)
    assert done.returncode == 0, done.stdout


def test_types_are_seen(tmp_path: Path, cache: Path) -> None:
    """The test above would pass if everything were Any."""
    pytest.importorskip("mypy")
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "import numpy as np\nimport ntkfast as nf\n"
        "K = nf.NTK(nf.vanilla_cnn(), np.eye(8), seed=3)\n"
        "z: int = nf.gradient_descent(K, np.eye(8))\n"
        "z = nf.nystrom(K, 9, rng='a').eigenvalues\n"
    )
    done = mypy(wrong, cache)
    assert done.stdout.count("error:") >= 4, done.stdout
