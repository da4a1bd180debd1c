"""Kinds: classes that a table chooses by its `kind`, ours by name and a user's by "file.py:Class".

A kind is a frozen dataclass: its fields are the rest of the table. A table that is only a string is short for
its `kind` alone. A field of a configuration is declared `Annotated[Base, KINDS]`: `from_table` builds it,
and `to_table` writes it with its kind.
"""

import dataclasses
import importlib
import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from pydantic_core import core_schema

from mjx_hkl.config import from_table
from mjx_hkl.errors import UserError, unknown_name
from mjx_hkl.user_code import PREFIX, load


@dataclasses.dataclass(frozen=True, eq=False)
class Kinds:
    """What a table may choose from.

    Attributes:
      what: names the choice in errors, like "[policy.high_level]".
      known: ours, by name.
      default: the kind of a table that does not say one; empty: every table must say its kind.
      requires: methods that a user's class must have.
      base: the class that a user's class must extend, where there is one.
    """

    what: str
    known: Mapping[str, type]
    default: str = ""
    requires: tuple[str, ...] = ()
    base: type | None = None

    def build(self, given: Any) -> Any:
        """The instance that a table, or the name of a kind alone, describes; an instance stays as it is.

        Raises:
          UserError: the kind is missing or unknown or cannot be imported, or a field is wrong.
        """
        if dataclasses.is_dataclass(given) and not isinstance(given, type):
            return given
        if isinstance(given, str):
            given = {"kind": given}
        if not isinstance(given, Mapping):
            raise UserError(f"{self.what} must be a table or the name of a kind, not {given!r}")
        fields = dict(given)
        kind = fields.pop("kind", self.default)
        if not isinstance(kind, str) or not kind:
            raise UserError(f"{self.what} needs a kind; known: {', '.join(self.known)}")
        return from_table(self.named(kind), fields, self.what)

    def named(self, kind: str) -> type:
        """The class of a kind.

        Raises:
          UserError: there is none, or it cannot be imported, or it is not what a kind must be.
        """
        if ":" not in kind:
            if kind not in self.known:
                raise unknown_name(f"kind of {self.what}", kind, self.known)
            return self.known[kind]
        found = imported(kind, self.what)
        lacking = [method for method in self.requires if not callable(getattr(found, method, None))]
        if not isinstance(found, type) or not dataclasses.is_dataclass(found) or lacking:
            methods = f" with methods {', '.join(self.requires)}" if self.requires else ""
            absent = f"it has no {', '.join(lacking)}"
            mend = absent if lacking else "write @dataclasses.dataclass(frozen=True) above it"
            raise UserError(f"{self.what}: {kind!r} must be a dataclass{methods}; {mend}")
        if self.base is not None and not issubclass(found, self.base):
            raise UserError(
                f"{self.what}: {kind!r} must extend {self.base.__module__}.{self.base.__qualname__}"
            )
        return found

    def name_of(self, instance: Any) -> str:
        """The kind of an instance: a name of ours, else "module:Class" or "file.py:Class"."""
        cls = type(instance)
        ours = next((name for name, known in self.known.items() if known is cls), None)
        return ours or reference(cls)

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> core_schema.CoreSchema:
        """A field of this kind is built from its table."""
        return core_schema.no_info_plain_validator_function(self.build)


def reference(cls: type) -> str:
    """What `imported` finds the class by again."""
    if cls.__module__.startswith(PREFIX) or cls.__module__ == "__main__":
        return f"{Path(inspect.getfile(cls)).absolute()}:{cls.__qualname__}"
    return f"{cls.__module__}:{cls.__qualname__}"


def imported(given: str, what: str) -> Any:
    """The object of "path/to/file.py:Name" or "package.module:Name".

    Raises:
      UserError: there is none, or importing it fails, or it may not run.
    """
    place, _, name = given.rpartition(":")
    if place.endswith(".py") and not Path(place).is_file():
        raise UserError(
            f"{what}: {Path(place).absolute()} does not exist; put the file back, or name another"
        )
    try:
        module = load(Path(place)).module if place.endswith(".py") else importlib.import_module(place)
    except UserError:
        raise
    except Exception as error:  # whatever a user's file raises
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{what}: {given!r} cannot be imported: {reason}") from error
    if not hasattr(module, name):
        classes = [key for key, value in vars(module).items() if isinstance(value, type)]
        raise UserError(f"{what}: {place} has {unknown_name('class', name, classes)}")
    return getattr(module, name)


def field_kinds(field: dataclasses.Field) -> Kinds | None:
    """The kinds that a field of a configuration, or each entry of its table, chooses from; else None."""
    declared = (field.type, *get_args(field.type)[-1:])
    return next(
        (x for one in declared for x in getattr(one, "__metadata__", ()) if isinstance(x, Kinds)), None
    )
