"""These are the codes that the command line returns to its caller."""

__all__ = ["FAILURE", "INTERRUPTED", "SUCCESS", "USAGE"]

SUCCESS, FAILURE, USAGE = 0, 1, 2
INTERRUPTED = 130  # as shells have it: 128 and the number of SIGINT
