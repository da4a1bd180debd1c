"""What a user's own class gets wrong, as one line that names its file, the line and the method."""

import contextlib
import difflib
import inspect
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from mjx_hkl.errors import UserError

_OURS = "mjx_hkl."
_UNTRACEABLE = {  # what JAX says of these fills a screen
    jax.errors.TracerBoolConversionError: "`if`, `and`, `or` and `while` need a value that is known before"
    " the program runs; use jnp.where, `&`, `|`",
    jax.errors.TracerArrayConversionError: "NumPy cannot compute with a value of a traced program; use"
    " jax.numpy",
    jax.errors.TracerIntegerConversionError: "an index of a Python list must be known before the program"
    " runs; make the list an array",
    jax.errors.ConcretizationTypeError: "a value is asked for that is only known when the program runs;"
    " float(), int() and shapes cannot depend on it",
}


@contextlib.contextmanager
def told_of(instance: Any, method: str) -> Iterator[None]:
    """Around a call of a method of a user's class, and around checks of what it gave.

    Raises:
      UserError: instead of whatever the method raises. What a class of ours raises is left as it is.
    """
    try:
        yield
    except Exception as error:
        cls = type(instance)
        if is_ours(cls):
            raise
        message = str(error).removeprefix("[task]: ") if isinstance(error, UserError) else _reason(error)
        raise UserError(f"{_place(error, cls, method)}, {cls.__name__}.{method}: {message}") from error


def is_ours(cls: type) -> bool:
    """Whether the class comes with this package."""
    return cls.__module__.startswith(_OURS)


def _place(error: Exception, cls: type, method: str) -> str:
    """File and line: where the class's file last was before the error, or where its method begins."""
    file = inspect.getsourcefile(cls) or "?"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
    line = lines[-1] if lines else getattr(cls, method).__code__.co_firstlineno
    return f"{Path(file).name}:{line}"


def _reason(error: Exception) -> str:
    for kind, reason in _UNTRACEABLE.items():
        if isinstance(error, kind):
            return reason
    first = str(error).strip().split("\n")[0]
    return f"{type(error).__name__}: {first}{_nearest(error)}" if first else type(error).__name__


def _nearest(error: Exception) -> str:
    """A suggestion for an attribute that is misspelled."""
    if not isinstance(error, AttributeError) or error.name is None:
        return ""
    known = [name for name in dir(error.obj) if not name.startswith("_")]
    near = difflib.get_close_matches(error.name, known, n=1)
    return f"; did you mean {near[0]}?" if near else ""
