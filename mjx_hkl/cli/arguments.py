"""Arguments by tyro, its errors cut down to one line."""

import contextlib
import io
import re
from typing import TypeVar

import tyro

from mjx_hkl.errors import UserError

T = TypeVar("T")


def parse(cls: type[T], command: str, arguments: list[str], default: T | None = None) -> T:
    """An instance of the dataclass `cls` from command-line arguments; its docstring is the help.

    Args:
      cls: its fields are the options.
      command: as the user types it, for the help text.
      arguments: to parse.
      default: values of what is not given.

    Raises:
      UserError: an option is unknown, or its value is wrong or missing.
      SystemExit: help was asked for and printed.
    """
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return tyro.cli(  # pyright: ignore - its overloads do not take a default that may be None
                cls,
                prog=f"mjx-hkl {command}",
                args=arguments,
                default=default,
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UserError(_one_line(errors.getvalue(), command)) from None


def _one_line(box: str, command: str) -> str:
    """The first paragraph of tyro's boxed message, and the options it suggests."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", box)
    rows = [line.strip("│ ").rstrip() for line in text.splitlines() if line.startswith("│")]
    paragraphs = [" ".join(p.split()) for p in re.split(r"\n─+\n", "\n".join(rows))]
    suggestions = [p for p in paragraphs if p.startswith("Perhaps you meant")]
    near = dict.fromkeys(re.findall(r"(?<!\S)--[\w.-]+", " ".join(suggestions)))
    hint = f"; did you mean {' or '.join(near)}?" if near else f"; see mjx-hkl {command} --help"
    message = paragraphs[0].replace("Error parsing ", "") if paragraphs else "cannot parse the arguments"
    return message[:1].lower() + message[1:].rstrip(".") + hint
