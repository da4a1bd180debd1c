"""TOML files that extend one another, and the files named inside them."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mjx_hkl import resources
from mjx_hkl.errors import UserError

_CLASS = re.compile(r"(.+\.py):(\w+)")


def read_extended(what: str, path: Path, folder_name: str, files: tuple[str, ...] = ()) -> dict[str, Any]:
    """The tables of a file on top of those of the file that it `extends`.

    Args:
      what: names such a file in errors, like "recipe".
      path: of the file.
      folder_name: the data folder in which files extended by name lie.
      files: fields that may name a file, which is looked for beside `path`, as `"file.py:Class"` is anywhere.

    Raises:
      UserError: a file does not exist, is not TOML, or extends itself.
    """
    return _read(what, path, folder_name, files, ())


def _read(what: str, path: Path, folder_name: str, files: tuple[str, ...], seen: tuple) -> dict[str, Any]:
    if path.resolve() in seen:
        raise UserError(f"{path} extends itself")
    table = beside(path, resources.read_toml(path), ("extends", *files))
    if "extends" not in table:
        return table
    base = resources.find(what, str(table.pop("extends")), folder_name, ".toml")
    return merged(_read(what, base, folder_name, files, (*seen, path.resolve())), table)


def beside(path: Path, table: Mapping[str, Any], files: tuple[str, ...]) -> dict[str, Any]:
    """The table, the files that it names looked for beside `path`.

    Args:
      path: of the file that the table is from.
      table: with tables inside.
      files: fields of the outermost table, and of tables in lists, that may name a file.
    """

    def found(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: found(item) for name, item in value.items()}
        if isinstance(value, list):
            return [beside(path, x, files) if isinstance(x, Mapping) else found(x) for x in value]
        user_class = _CLASS.fullmatch(value) if isinstance(value, str) else None
        return f"{(path.parent / user_class[1]).absolute()}:{user_class[2]}" if user_class else value

    result = {name: found(value) for name, value in table.items()}
    named = {name: result[name] for name in files if isinstance(result.get(name), str)}
    return result | {name: resources.beside(path, given) for name, given in named.items()}


def merged(base: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the fields of `change`, table by table.

    A table that says its own `kind` replaces the other one whole. One that does not changes the fields of the
    kind that is there, also where only a name stands for that kind.
    """
    result = dict(base)
    for name, value in change.items():
        old = base.get(name)
        if isinstance(value, Mapping) and "kind" not in value and isinstance(old, Mapping | str):
            value = merged({"kind": old} if isinstance(old, str) else old, value)
        result[name] = value
    return result
