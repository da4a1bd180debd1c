"""Checked configuration: frozen dataclasses filled from TOML tables, every mistake one clear line."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, get_args

from annotated_types import Ge, Gt, Le, Lt, MaxLen
from pydantic import AllowInfNan, TypeAdapter, ValidationError

from mjx_hkl.errors import UserError, unknown_name

T = TypeVar("T")

Positive = Annotated[int, Gt(0), Le(10**15)]
NonNegative = Annotated[int, Ge(0), Le(10**15)]
Few = Annotated[int, Gt(0), Le(1000)]
"""Things that a program holds one by one, like seeds or critics."""
Many = Annotated[int, Gt(0), Le(2**24)]
"""Things side by side in one array, like worlds or the steps of a window."""
FiniteFloat = Annotated[float, AllowInfNan(False)]
PositiveFloat = Annotated[float, Gt(0), AllowInfNan(False)]
NonNegativeFloat = Annotated[float, Ge(0), AllowInfNan(False)]
Fraction = Annotated[float, Ge(0), Le(1)]
Seed = Annotated[int, Ge(0), Lt(2**32)]
Sizes = Annotated[tuple[Annotated[int, Gt(0), Le(2**16)], ...], MaxLen(100)]
"""Of layers."""


def from_table(cls: type[T], table: Mapping[str, Any], where: str) -> T:
    """An instance of the dataclass `cls` from a TOML table, types and ranges checked.

    Args:
      cls: a dataclass; nested dataclasses are nested tables.
      table: what TOML gives: str, bool, int, float, lists and tables.
      where: the file or command line it came from, for the error.

    Raises:
      UserError: an unknown or missing field, a wrong type, a number out of range.
    """
    refuse_unknown_fields(cls, table, where)
    try:
        text = json.dumps(table)  # JSON, so that a TOML array may be a tuple in strict mode
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: {error}") from error
    try:
        adapter: TypeAdapter[T] = TypeAdapter(cls)
        return adapter.validate_json(text, strict=True)
    except ValidationError as error:
        raise UserError(f"{where}: {_first_problem(error)}") from error
    except UserError as error:  # a table inside that a kind reads
        raise UserError(f"{where}: {error}") from error


def to_table(config: Any) -> dict[str, Any]:
    """The TOML table `from_table` reads back; fields that are None are left out, kinds are named."""
    table = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value is not None:
            table[field.name] = _plain(value, field.type)
    return table


def difference(was: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """The first field in which two tables differ, in words; None where they are equal."""
    for key in sorted({*was, *now}):
        old, new = was.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            inner = difference(old, new)
            if inner:
                return f"{key}.{inner}"
        elif old != new:
            return f"{key} is {old!r} there and {new!r} here"
    return None


def refuse_unknown_fields(cls: type, table: Mapping[str, Any], where: str) -> None:
    """Raises UserError, naming the nearest fields, for a key of `table` that `cls` does not have."""
    fields: dict[str, Any] = {field.name: _without_optional(field.type) for field in dataclasses.fields(cls)}
    for key, value in table.items():
        if key not in fields:
            raise UserError(f"{where}: {unknown_name('field', key, fields)}")
        if dataclasses.is_dataclass(fields[key]) and isinstance(value, Mapping):
            refuse_unknown_fields(fields[key], value, f"{where}: [{key}]")


def _without_optional(kind: Any) -> Any:
    """X of `X | None`; anything else as it is."""
    kinds = [one for one in get_args(kind) if one is not type(None)]
    return kinds[0] if isinstance(kind, UnionType) and len(kinds) == 1 else kind


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False)[0]
    name = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:].replace("an object", "a table")
    given = "" if problem["type"] in ("missing", "value_error") else f", not {problem['input']!r}"
    return f"{name}: {message}{given}" if name else f"{message}{given}"


def _plain(value: Any, declared: Any) -> Any:
    """What TOML can hold of a field's value."""
    if dataclasses.is_dataclass(value):
        chosen = [x.name_of(value) for x in getattr(declared, "__metadata__", ()) if hasattr(x, "name_of")]
        return {**({"kind": chosen[0]} if chosen else {}), **to_table(value)}
    if isinstance(value, Mapping):
        of = (get_args(declared) or (None, None))[-1]
        return {key: _plain(item, of) for key, item in value.items() if item is not None}
    if isinstance(value, Path):
        return str(value)
    return [_plain(item, None) for item in value] if isinstance(value, tuple | list) else value
