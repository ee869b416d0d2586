"""Where the command line begins: Ctrl-C counts from here on, also while the rest is imported."""

import os
import sys

from .exit_codes import INTERRUPTED

__all__ = ["main"]


def main() -> int:
    """``ntkfast.app.cli.main``, or the exit code of an interruption before it is there."""
    try:
        _open_streams()
        from .cli import main as run

        return run()
    except KeyboardInterrupt:
        print("ntkfast: interrupted", file=sys.stderr)
        return INTERRUPTED


def _open_streams() -> None:
    """A stream that was closed before the start, as under some daemons, takes what is written and says nothing."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (for as long as the process lives)
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
