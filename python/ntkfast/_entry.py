"""Where the command line begins: Ctrl-C counts from here on, also while the rest is imported."""

import sys

__all__ = ["INTERRUPTED", "main"]

INTERRUPTED = 130


def main() -> int:
    """``ntkfast.cli.main``, or the exit code of an interruption before it is there."""
    try:
        from .cli import main as run

        return run()
    except KeyboardInterrupt:
        print("ntkfast: interrupted", file=sys.stderr)
        return INTERRUPTED
