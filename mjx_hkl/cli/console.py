"""Output whose reader may have gone, as with `| head`."""

import contextlib
import os
import sys

from rich.console import Console


def to_nowhere() -> None:
    """From now on stdout goes nowhere; else Python fails when it flushes it at its end."""
    with contextlib.suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class PipedConsole(Console):
    """Falls silent when its reader has gone, instead of ending the command."""

    def on_broken_pipe(self) -> None:
        """Called by rich."""
        self.quiet = True
        to_nowhere()
