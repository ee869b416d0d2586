"""These test what the command line says of itself: its help, its version and ``ntkfast info``."""

from __future__ import annotations

import inspect
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import ntkfast
from command_line import shell
from ntkfast import _choices
from ntkfast.app import cli, report
from ntkfast.app.cli import main
from ntkfast.restoration.denoise import denoise_ntk


def test_help_names_the_defaults_of_the_denoiser() -> None:
    tiles = ntkfast.Tiles()
    assert _choices.METHODS[0].replace("-", "") == type(tiles).__name__.lower()
    assert f"{_choices.METHODS[0]} (the default)" in cli.METHOD_HELP
    assert f"Default: {tiles.stopping}" in cli.STOPPING_HELP
    assert f"default: {tiles.passes})" in cli.PASSES_HELP
    assert f"default: {tiles.size})" in cli.SIZE_HELP
    assert f"default: {ntkfast.Compute().device}," in cli.DEVICE_HELP
    assert inspect.signature(denoise_ntk).parameters["strength"].default == 1
    assert f"up to {len(report.PATH_FACTORS) - 1} more" in cli.CLEAN_HELP
    for kind, names in ((ntkfast.Tiles, cli.TILES_OPTIONS), (ntkfast.WholeImage, cli.WHOLE_IMAGE_OPTIONS)):
        assert {*names, *cli.PASSES_OPTIONS} <= inspect.signature(kind).parameters.keys()
    assert set(cli.COMPUTE_OPTIONS) <= inspect.signature(ntkfast.Compute).parameters.keys()


@pytest.mark.parametrize("command", ["denoise", "affinity", "info"])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert "130 interrupted" in " ".join(capsys.readouterr().out.split())


def test_help_states_the_units_of_sigma(capsys: pytest.CaptureFixture[str]) -> None:
    main(["denoise", "--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert "0..255 for 8 bit files, 0..65535 for 16 bit files, the file's own units for floating point files" in text


def test_version(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(ntkfast, "__version__", "1.2.3", raising=False)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == "ntkfast 1.2.3\n"


def test_info(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    facts = {"version": "1.2.3", "isa_compiled": ["baseline", "avx2"], "threads_by": "OpenMP", "something new": 5}
    facts["cards"] = [
        {"name": "A", "capability": "9.0", "bytes": 2**31},
        {"name": "B", "capability": "8.6", "bytes": 4},
    ]
    facts |= {"nothing": [], "missing": None}
    monkeypatch.setattr(ntkfast, "info", lambda: facts, raising=False)
    monkeypatch.setenv("NTKFAST_ISA", "baseline")
    assert main(["info"]) == 0
    lines = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    shown = {key: value.strip() for key, value in lines.items()}
    assert shown["isa_compiled"] == "baseline, avx2"
    assert shown["threads_by"] == "OpenMP"
    assert shown["something new"] == "5"
    assert shown["cards"] == "0: A, capability 9.0, 2.0 GiB (2147483648 bytes); 1: B, capability 8.6, 4 bytes"
    assert shown["nothing"] == shown["missing"] == "none"
    assert shown["NTKFAST_ISA"] == "baseline"
    assert (
        len({len(line) - len(shown[key]) for key, line in zip(lines, map(": ".join, lines.items()), strict=True)}) == 1
    )
    monkeypatch.delenv("NTKFAST_ISA")
    assert main(["info", "--json"]) == 0
    parsed = json.loads(capsys.readouterr().out)
    assert parsed["isa_compiled"] == ["baseline", "avx2"]
    assert parsed["NTKFAST_ISA"] == "not set"


def test_heavy_modules_are_not_imported_by_the_parser() -> None:
    code = (
        "import sys; from ntkfast.app.cli import main; main(['denoise', '--help']); "
        "heavy = {'scipy', 'skimage', 'imagecodecs', 'tifffile', 'tqdm', 'matplotlib'} & set(sys.modules); "
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_info_of_the_real_engine() -> None:
    done = shell("info", "--json")
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    expected = {
        "version",
        "python",
        "numpy",
        "cores",
        "threads",
        "threads_by",
        "isa_compiled",
        "isa_supported",
        "isa_active",
    }
    assert expected <= set(facts)
    assert facts["isa_active"] in set(facts["isa_compiled"]) & set(facts["isa_supported"])


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes")
def test_reader_that_leaves(here: Path) -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "-m", "ntkfast", "info"], stdout=write_end, stderr=subprocess.PIPE, timeout=60, check=False
    )
    os.close(write_end)
    assert (done.returncode, done.stderr) == (1, b"")
