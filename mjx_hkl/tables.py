"""TOML files that extend one another, and the files named inside them."""

import os
import re
from collections.abc import Callable, Mapping
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
    table: dict[str, Any] = {}
    for file in reversed(files_extended(what, path, folder_name)):
        table = merged(table, beside(file, resources.read_toml(file), files))
        table.pop("extends", None)
    return table


def files_extended(what: str, path: Path, folder_name: str) -> list[Path]:
    """The file, the one that it extends, the one that this extends, and so on; see `read_extended`."""
    found = [path]
    while (extends := resources.read_toml(found[-1]).get("extends")) is not None:
        base = resources.find(what, resources.beside(found[-1], str(extends)), folder_name, ".toml")
        if base.resolve() in (file.resolve() for file in found):
            raise UserError(f"{base} extends itself")
        found.append(base)
    return found


def beside(path: Path, table: Mapping[str, Any], files: tuple[str, ...]) -> dict[str, Any]:
    """The table, the files that it names looked for beside `path`.

    Args:
      path: of the file that the table is from.
      table: with tables inside.
      files: fields of the outermost table, and of tables in lists, that may name a file or several.
    """

    def found(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {name: found(item) for name, item in value.items()}
        if isinstance(value, list):
            return [beside(path, x, files) if isinstance(x, Mapping) else found(x) for x in value]
        user_class = _CLASS.fullmatch(value) if isinstance(value, str) else None
        return f"{os.path.abspath(path.parent / user_class[1])}:{user_class[2]}" if user_class else value

    def place(given: Any) -> Any:
        if isinstance(given, list):
            return [place(x) for x in given]
        return resources.beside(path, given) if isinstance(given, str) else given

    result = {name: found(value) for name, value in table.items()}
    return result | {name: place(result[name]) for name in files if name in result}


def with_files(table: Any, place: Callable[[str], str]) -> Any:
    """The table, or what is in it, with every text that may name a file changed: `place` of what it names.

    Of `"file.py:Class"` it is the file.
    """
    if isinstance(table, Mapping):
        return {name: with_files(value, place) for name, value in table.items()}
    if isinstance(table, list):
        return [with_files(value, place) for value in table]
    if not isinstance(table, str):
        return table
    file, name = _file_and_class(table)
    return f"{place(file)}:{name}" if file else place(table)


def code_in(table: Any) -> list[Path]:
    """The Python files that a table names, each once."""
    if isinstance(table, str):
        file, _ = _file_and_class(table)
        return [Path(file)] if file else []
    inside = table.values() if isinstance(table, Mapping) else table if isinstance(table, list) else ()
    return list(dict.fromkeys(file for value in inside for file in code_in(value)))


def _file_and_class(text: str) -> tuple[str, str]:
    """The parts of `"file.py:Class"`, taken apart as loosely as a kind is imported; of others nothing."""
    file, _, name = text.rpartition(":")
    return (file, name) if file.endswith(".py") else ("", "")


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
