"""These test that nothing is ever half-written, or overwritten unasked."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

import imagecodecs
import pytest

from ntkfast.app.image_files import (
    check_destination,
    write_atomically,
    write_image,
)
from picture_files import left_behind, picture, posix


def test_existing_file_is_kept_without_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError, match="the output exists"):
        write_atomically(path, b"yours")
    with pytest.raises(FileExistsError, match="the output exists"):
        check_destination(path, overwrite=False, source=tmp_path / "other")
    assert path.read_bytes() == b"mine"
    write_atomically(path, b"yours", overwrite=True)
    assert path.read_bytes() == b"yours"
    assert left_behind(tmp_path) == ["a.png"]


def forbid_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """Act like a file system without hard links."""

    def link(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", link)


@pytest.mark.parametrize("links", [True, False])
def test_file_that_appears_during_the_work_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    path = tmp_path / "a.png"
    if not links:
        forbid_links(monkeypatch)
    # fsync is the last thing done before the new file gets its name.
    monkeypatch.setattr(os, "fsync", lambda _: path.write_bytes(b"mine"))
    with pytest.raises(FileExistsError) as error:
        write_atomically(path, b"yours")
    assert error.value.filename == str(path)
    assert path.read_bytes() == b"mine"
    assert left_behind(tmp_path) == ["a.png"]


@posix
@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_new_file_has_the_permissions_of_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool, umask: int, mode: int
) -> None:
    if not links:
        forbid_links(monkeypatch)
    before = os.umask(umask)
    try:
        write_atomically(tmp_path / "a.png", b"data")
    finally:
        os.umask(before)
    assert (tmp_path / "a.png").read_bytes() == b"data"
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == mode
    assert left_behind(tmp_path) == ["a.png"]


@posix
def test_overwriting_keeps_permissions_and_follows_links(tmp_path: Path) -> None:
    (tmp_path / "real.png").write_bytes(b"old")
    (tmp_path / "real.png").chmod(0o640)
    (tmp_path / "link.png").symlink_to("real.png")
    write_atomically(tmp_path / "link.png", b"new", overwrite=True)
    assert (tmp_path / "link.png").is_symlink()
    assert (tmp_path / "real.png").read_bytes() == b"new"
    assert stat.S_IMODE((tmp_path / "real.png").stat().st_mode) == 0o640


@posix
def test_dangling_link_counts_as_existing(tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to("nowhere.png")
    with pytest.raises(FileExistsError):
        write_atomically(tmp_path / "link.png", b"new")
    with pytest.raises(FileExistsError):
        check_destination(tmp_path / "link.png", overwrite=False, source=tmp_path / "in.png")
    assert left_behind(tmp_path) == ["link.png"]


FAILURES = [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()]


@pytest.mark.parametrize("failure", FAILURES, ids=["full disk", "Ctrl-C"])
@pytest.mark.parametrize(
    ("function", "overwrite", "links"),
    [("fsync", False, True), ("fsync", True, True), ("replace", True, True), ("replace", False, False)],
)
def test_failure_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, overwrite: bool, links: bool, failure: BaseException
) -> None:
    path = tmp_path / "a.png"
    if overwrite:
        path.write_bytes(b"mine")
    if not links:
        forbid_links(monkeypatch)

    def fail(*_: object) -> None:
        raise failure

    monkeypatch.setattr(os, function, fail)
    with pytest.raises(type(failure)) as error:
        write_atomically(path, b"yours", overwrite=overwrite)
    if isinstance(error.value, OSError):
        assert error.value.filename == str(path)
        assert error.value.errno == errno.ENOSPC
    assert left_behind(tmp_path) == (["a.png"] if overwrite else [])
    assert not overwrite or path.read_bytes() == b"mine"


def test_failing_encoder_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> bytes:
        raise RuntimeError("encoder")

    (tmp_path / "a.png").write_bytes(b"mine")
    monkeypatch.setattr(imagecodecs, "png_encode", fail)
    with pytest.raises(RuntimeError, match="encoder"):
        write_image(picture((4, 5)), tmp_path / "a.png", overwrite=True)
    assert left_behind(tmp_path) == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == b"mine"


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(("parent", "message"), [("none", "No such file or directory"), ("file", "Not a directory")])
def test_directory_that_takes_no_files(tmp_path: Path, overwrite: bool, parent: str, message: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match=message) as error:
        check_destination(tmp_path / parent / "a.png", overwrite=overwrite, source=tmp_path / "in.png")
    assert error.value.filename == str(tmp_path / parent)
    with pytest.raises(OSError, match=message):
        write_atomically(tmp_path / parent / "a.png", b"data", overwrite=overwrite)
    assert left_behind(tmp_path) == ["file"]


@posix
def test_only_regular_files_are_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "directory.png").mkdir()
    for name, message in (("pipe.png", "must be a regular file"), ("directory.png", "must be a file, got a directory")):
        for check in (
            lambda path: check_destination(path, overwrite=True, source="in.png"),
            lambda path: write_atomically(path, b"data", overwrite=True),
        ):
            with pytest.raises(OSError, match=message):
                check(tmp_path / name)
    assert left_behind(tmp_path) == ["directory.png", "pipe.png"]
    assert stat.S_ISFIFO((tmp_path / "pipe.png").stat().st_mode)


@posix
def test_output_that_is_the_input_is_named_so(tmp_path: Path) -> None:
    (tmp_path / "in.png").write_bytes(b"mine")
    (tmp_path / "soft.png").symlink_to("in.png")
    os.link(tmp_path / "in.png", tmp_path / "hard.png")
    for name in ("in.png", "soft.png", "hard.png"):
        with pytest.raises(FileExistsError, match="the output is the input file itself"):
            check_destination(tmp_path / name, overwrite=False, source=tmp_path / "in.png")
        check_destination(tmp_path / name, overwrite=True, source=tmp_path / "in.png")


def test_checking_the_destination_leaves_nothing_behind(tmp_path: Path) -> None:
    check_destination(tmp_path / "a.png", overwrite=False, source=tmp_path / "in.png")
    assert left_behind(tmp_path) == []
