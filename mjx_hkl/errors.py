"""The one exception for mistakes a user can mend: shown as one line, exit code 2, no traceback."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """What was given, what was expected, what to do: one line."""


_NO_MEMORY = (
    "can't start new thread",
    "bad_alloc",
    "Cannot allocate memory",
    "Out of memory",
    "Ran out of memory",
)


def tells_no_memory(error: BaseException) -> bool:
    """Whether an error says that the machine, or a limit of the process, gives no more memory or threads.

    Or one that it was raised beside: what cleans up may fail of the same, in other words.
    """
    known: BaseException | None = error
    while known is not None:
        if isinstance(known, MemoryError) or any(words in str(known) for words in _NO_MEMORY):
            return True
        known = known.__cause__ or known.__context__
    return False


def unknown_name(what: str, given: str, known: Iterable[str]) -> UserError:
    """The error for a name that is none of `known`, naming the nearest ones."""
    known = sorted(known)
    near = difflib.get_close_matches(given, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(known) or 'none'}"
    return UserError(f"unknown {what} {given!r}; {hint}")
