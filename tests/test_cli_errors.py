"""These test how the command line fails: one line that says why, an exit code, and nothing written.

A quick function stands in the place of the denoiser.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from command_line import FakeDenoiser, fail, names, save
from ntkfast.app.cli import main


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("image must be finite,\n got NaN"), "image must be finite, got NaN"),
        (MemoryError("needs 5 GiB"), "out of memory: needs 5 GiB"),
        (MemoryError(), "out of memory: try smaller tiles"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_failing_work_exits_1_with_one_line(
    here: Path, denoiser: FakeDenoiser, capsys: pytest.CaptureFixture[str], error: Exception, message: str
) -> None:
    denoiser.meanwhile = fail(error)
    assert main(["denoise", "in.png", "out.png"]) == 1
    assert capsys.readouterr() == ("", f"ntkfast denoise: error: {message}\n")
    assert main(["denoise", "in.png", "out.png", "--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err
    assert names() == ["in.png"]


@pytest.mark.parametrize("moment", ["importing", "denoising", "writing"])
def test_ctrl_c_exits_130_with_nothing_written(
    here: Path, denoiser: FakeDenoiser, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    if moment == "denoising":
        denoiser.meanwhile = fail(KeyboardInterrupt())
    elif moment == "importing":  # as pybind11 reports it
        failed = ImportError("initialization failed")
        failed.__cause__ = KeyboardInterrupt()
        denoiser.meanwhile = fail(failed)
    else:
        monkeypatch.setattr(os, "fsync", fail(KeyboardInterrupt()))
    assert main(["denoise", "in.png", "out.png"]) == 130
    assert capsys.readouterr() == ("", "ntkfast denoise: interrupted\n")
    assert names() == ["in.png"]


def test_full_disk(here: Path, denoiser: FakeDenoiser, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setattr(os, "fsync", fail(OSError(28, "No space left on device")))
    assert main(["denoise", "in.png", "out.png"]) == 1
    assert capsys.readouterr().err == "ntkfast denoise: error: No space left on device: out.png\n"
    assert names() == ["in.png"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.png", None, "No such file or directory: none.png"),
        ("empty.png", b"", "cannot read empty.png: must be a PNG, JPEG or TIFF file, but it is empty"),
        (
            "text.png",
            b"hello, world",
            "cannot read text.png: must be a PNG, JPEG or TIFF file, but it starts with b'hello",
        ),
        ("cut.png", b"\x89PNG\r\n\x1a\n\0\0", "cannot read cut.png: the file is damaged or incomplete"),
    ],
)
def test_unreadable_input_exits_1(
    here: Path,
    denoiser: FakeDenoiser,
    capsys: pytest.CaptureFixture[str],
    name: str,
    content: bytes | None,
    message: str,
) -> None:
    if content is not None:
        Path(name).write_bytes(content)
    assert main(["denoise", name, "out.png"]) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"ntkfast denoise: error: {message}")
    assert err.count("\n") == 1
    assert denoiser.calls == []
    assert "out.png" not in names()


def test_directory_that_does_not_exist_exits_1_before_any_work(
    here: Path, denoiser: FakeDenoiser, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["denoise", "in.png", "none/out.png"]) == 1
    assert capsys.readouterr().err == "ntkfast denoise: error: No such file or directory: none\n"
    assert denoiser.calls == []


@pytest.mark.parametrize(
    ("name", "dtype", "alpha", "out", "message"),
    [
        ("a.tif", "float32", False, "out.png", "a PNG file cannot hold float32 samples as a.tif has"),
        ("a.png", "uint16", False, "out.jpg", "a JPEG file cannot hold uint16 samples as a.png has"),
        ("a.png", "uint8", True, "out.jpg", "a JPEG file cannot hold an alpha plane as a.png has"),
    ],
)
def test_format_that_does_not_fit_exits_1_before_any_work(
    here: Path, denoiser: FakeDenoiser, capsys: pytest.CaptureFixture[str],
    name: str, dtype: str, alpha: bool, out: str, message: str,
) -> None:  # fmt: skip
    save(name, (12, 17, 3), dtype, alpha)
    assert main(["denoise", name, out]) == 1
    assert f"error: {message}; give the output a name that ends in" in capsys.readouterr().err
    assert denoiser.calls == []
    assert out not in names()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "the following arguments are required: COMMAND"),
        ("sharpen", "invalid choice: 'sharpen'"),
        ("denoise in.png", "the following arguments are required: OUT"),
        ("denoise in.png out.gif", "argument OUT: the output's name must end in .png, .jpg"),
        ("denoise in.png out.png --sigma 0", "argument --sigma: must be a finite number > 0, got '0'"),
        ("denoise in.png out.png --sigma nan", "argument --sigma: must be a finite number > 0, got 'nan'"),
        ("denoise in.png out.png --sigma inf", "argument --sigma: must be a finite number > 0, got 'inf'"),
        ("denoise in.png out.png --sigma x", "argument --sigma: must be a finite number > 0, got 'x'"),
        ("denoise in.png out.png --noise-gain 0", "argument --noise-gain: must be a finite number > 0, got '0'"),
        (
            "denoise in.png out.png --sigma 1 --sigma-map in.png",
            "argument --sigma-map: not allowed with argument --sigma\n",
        ),
        (
            "denoise in.png out.png --noise-gain 1 --sigma-map in.png",
            "argument --sigma-map: not allowed with argument --noise-gain\n",
        ),
        (
            "denoise in.png out.png --noise-gain 1 --sigma 1,2,3",
            "argument --sigma: must be one number with --noise-gain, got 3\n",
        ),
        (
            "denoise in.png out.png --sigma 1,2",
            "argument --sigma: must be one number or, for 3 channels, as many, got 2",
        ),
        ("denoise in.png out.png --sigma 1,0,2", "argument --sigma: must be a finite number > 0, got '0'"),
        ("denoise in.png out.png --strength -1", "argument --strength: must be a finite number >= 0, got '-1'"),
        ("denoise in.png out.png --landmarks 9", "argument --landmarks: needs --method whole-image\n"),
        ("denoise in.png out.png --method whole-image --size 9", "argument --size: needs --method tiles\n"),
        ("denoise in.png out.png --method fast", "argument --method: invalid choice: 'fast'"),
        ("denoise in.png out.png --stopping never", "argument --stopping: invalid choice: 'never'"),
        ("denoise in.png out.png --landmarks 0", "argument --landmarks: must be an integer >= 1, got '0'"),
        (
            "denoise in.png out.png --steps 0",
            "argument --steps: must be an integer >= 1, or several as in 150,1000, got '0'",
        ),
        ("denoise in.png out.png --steps 1.5", "argument --steps: must be an integer >= 1, or several"),
        ("denoise in.png out.png --steps 5,", "argument --steps: must be an integer >= 1, or several"),
        ("denoise in.png out.png --steps 5,0", "argument --steps: must be an integer >= 1, or several"),
        (
            "denoise in.png out.png --steps 5,6,7",
            "argument --steps: must be one number or 2, one for each pass, got 3\n",
        ),
        ("denoise in.png out.png --steps 5,6 --passes 1", "argument --steps: must be one number or 1, one for each"),
        (
            "denoise in.png out.png --overlap 16",
            "argument --overlap: must be below --size, 16, got 16\n",
        ),
        (
            "denoise in.png out.png --size 4 --overlap 5",
            "argument --overlap: must be below --size, 4, got 5\n",
        ),
        ("denoise in.png out.png --threads 5000", "argument --threads: must be an integer from 1 to 1024, got '5000'"),
        ("denoise in.png out.png --size 0", "argument --size: must be an integer >= 1"),
        ("denoise in.png out.png --overlap -1", "argument --overlap: must be an integer >= 0, got '-1'"),
        ("denoise in.png out.png --passes 0", "argument --passes: must be an integer >= 1"),
        ("denoise in.png out.png --rng -1", "argument --rng: must be an integer >= 0"),
        ("denoise in.png out.png --threads 0", "argument --threads: must be an integer from 1 to 1024"),
        (
            "denoise in.png out.png --device gpu",
            "argument --device: must be 'auto', 'cpu', 'cuda' or 'cuda:N', got 'gpu'",
        ),
        ("denoise in.png out.png --report out.txt", "argument --report: must be named *.html or *.htm, got 'out.txt'"),
        ("denoise in.png out.png --clean in.png", "argument --clean: needs --report PAGE, on which it is used"),
        ("denoise in.png out.png --device cuda:x", "argument --device: must be 'auto', 'cpu', 'cuda' or 'cuda:N', got"),
        ("affinity in.png -o out.png", "the following arguments are required: --at"),
        ("affinity in.png --at 1,2", "the following arguments are required: -o/--output"),
        (
            "affinity in.png --at 1 -o out.png",
            "argument --at: must be ROW,COL, two integers >= 0 such as 120,45, got '1'",
        ),
        ("affinity in.png --at 1,2,3 -o out.png", "argument --at: must be ROW,COL"),
        ("affinity in.png --at 1,x -o out.png", "argument --at: must be ROW,COL"),
        ("affinity in.png --at=-1,2 -o out.png", "argument --at: must be ROW,COL"),
        ("affinity in.png --at 1,2 -o out.jpg", "argument -o/--output: must be named *.png, .pdf, .svg, got 'out.jpg'"),
        ("affinity in.png --at 1,2 -o out.png --kernel-size 4", "--kernel-size: must be an odd integer >= 1, got '4'"),
        ("affinity in.png --at 1,2 -o out.png --depth 0", "argument --depth: must be an integer >= 1"),
        ("affinity in.png --at 1,2 -o out.png --padding same", "argument --padding: invalid choice: 'same'"),
        ("affinity in.png --at 1,2 -o out.png --kernel rbf", "argument --kernel: invalid choice: 'rbf'"),
    ],
)
def test_wrong_arguments_exit_2(
    here: Path, denoiser: FakeDenoiser, kernels: list, capsys: pytest.CaptureFixture[str], arguments: str, message: str
) -> None:
    assert main(arguments.split()) == 2
    assert message in capsys.readouterr().err
    assert names() == ["in.png"]
    assert denoiser.calls == []
    assert kernels == []


def test_ctrl_c_while_the_command_line_is_imported() -> None:
    code = """
        import sys

        class Interrupt:
            def find_spec(self, name, *rest):
                if name == "numpy":
                    raise KeyboardInterrupt

        sys.meta_path.insert(0, Interrupt())
        from ntkfast.app.entry import main
        sys.exit(main())
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "ntkfast: interrupted\n")
