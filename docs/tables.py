"""Tables of a dataclass's fields, for the site's Reference: types, defaults, meanings, places in the paper.

Types and defaults are those of the running code; meanings are the docstrings and comments beside the fields.
"""

import dataclasses
import functools
import json
import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import annotated_types
import griffe

from mjx_hkl.kinds import Kinds, field_kinds


def sections(cls: type, prefix: str) -> Iterator[str]:
    """The tables of a configuration: its own plain fields first, then each table inside, then each kind."""
    fields = dataclasses.fields(cls)
    yield from field_table(cls, [field for field in fields if not _inner(field) and not field_kinds(field)])
    for field in fields:
        path = f"{prefix}{field.name}"
        if kinds := field_kinds(field):
            yield from _kinds(cls, field, kinds, f"{path}.GROUP" if _is_mapping(field) else path)
        elif inner := _inner(field):
            yield _heading(2, f"[{path}]")
            yield from filter(None, (prose(inner), _meaning(cls, field)))
            yield from sections(inner, f"{path}.")


def _kinds(cls: type, field: dataclasses.Field, kinds: Kinds, path: str) -> Iterator[str]:
    """A table that has a kind: what all kinds have, then what each has."""
    yield _heading(2, f"[{path}]")
    default = f"`{kinds.default}`" if kinds.default else "none: the table must say it"
    yield from filter(None, [_meaning(cls, field)])
    yield f"`kind`: {', '.join(f'`{name}`' for name in kinds.known)}; by default {default}."
    shared = dataclasses.fields(kinds.base) if kinds.base and dataclasses.is_dataclass(kinds.base) else ()
    if shared:
        yield "All kinds have:" if len(kinds.known) > 1 else "Every kind has:"
        yield from field_table(kinds.base, shared)
    known = {x.name: x.default for x in shared}
    for name, kind in kinds.known.items():
        own = [x for x in dataclasses.fields(kind) if x.name not in known or x.default != known[x.name]]
        yield _heading(3, f"{path}: {name}")
        yield prose(kind)
        yield from field_table(kind, own)


def _heading(level: int, text: str) -> str:
    anchor = re.sub(r"[^\w.]+", "-", text.strip("[]")).replace(".", "-").lower()
    return f"{'#' * level} `{text}` {{ #{anchor} }}"


def field_table(cls: Any, fields: Any) -> Iterator[str]:
    """A table of fields, where there are any."""
    if fields:
        rows = [field_row(cls, field) for field in fields]
        yield table(("key", "type", "default", "meaning", "paper"), rows)


def field_row(cls: type, field: dataclasses.Field) -> tuple[str, str, str, str, str]:
    """Key, type, default, meaning, and where its text cites the paper."""
    meaning = _meaning(cls, field)
    return f"`{field.name}`", _type(field.type), _default(field), meaning, _paper(meaning)


_PAPER = re.compile(
    r"eqs?\. ?\d+(?:(?:, | and )\d+)*|§ ?\d+(?:\.\d+)*|Appendix [A-G]\b|\b[A-G]\.\d\b|Algorithm [12]\b"
    r"|Table \d\b|[Ff]igure \d+\w?"
)


def _paper(text: str) -> str:
    """Where the text cites the paper."""
    return ", ".join(dict.fromkeys(_PAPER.findall(text)))


def _inner(field: dataclasses.Field) -> type | None:
    """The dataclass of a table inside."""
    found = [x for x in (field.type, *get_args(field.type)) if isinstance(x, type)]
    return next((x for x in found if dataclasses.is_dataclass(x) and not field_kinds(field)), None)


def _is_mapping(field: dataclasses.Field) -> bool:
    return get_origin(field.type) is dict


_TOML = {str: "string", Path: "string", int: "integer", float: "number", bool: "boolean", Any: "any"}


def _type(declared: Any) -> str:
    """A type in TOML's words, with its range."""
    origin, arguments = get_origin(declared), get_args(declared)
    if origin is Annotated:
        return f"{_type(arguments[0])}{_range(arguments[1:])}"
    if origin in (Union, types.UnionType):
        return " or ".join(_type(x) for x in arguments if x is not type(None))
    if origin is Literal:
        return " or ".join(f"`{json.dumps(x)}`" for x in arguments)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"array of {_type(arguments[0])}"
        return f"[{', '.join(map(_type, arguments))}]"
    if origin is dict:
        return f"table of {_type(arguments[1])}"
    return "table" if dataclasses.is_dataclass(declared) else _TOML.get(declared, str(declared))


def _range(constraints: tuple[Any, ...]) -> str:
    signs = {annotated_types.Ge: ("≥", "ge"), annotated_types.Gt: (">", "gt")}
    signs |= {annotated_types.Le: ("≤", "le"), annotated_types.Lt: ("<", "lt")}
    found = []
    for constraint in constraints:
        if type(constraint) in signs:
            sign, attribute = signs[type(constraint)]
            bound = getattr(constraint, attribute)
            if bound < 10**6:  # a greater one guards the arithmetic, and tells a reader nothing
                found.append(f"{sign} {bound:g}")
    return f" {', '.join(found)}" if found else ""


def _default(field: dataclasses.Field) -> str:
    if field.default_factory is not dataclasses.MISSING:
        value = field.default_factory()
    elif field.default is dataclasses.MISSING:
        return "required"
    else:
        value = field.default
    if value in (None, "", (), {}):
        return ""
    if dataclasses.is_dataclass(value):
        return "table"
    if isinstance(value, int) and not isinstance(value, bool) and value >= 10_000:
        return f"`{value:_}`"
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _meaning(cls: type, field: dataclasses.Field) -> str:
    """The docstring under a field, or the comment beside it, in the class that declares it."""
    for owner in cls.__mro__:
        if field.name in vars(owner).get("__annotations__", {}):
            found = _read(owner).members[field.name]
            if found.docstring:
                return _flat(found.docstring.value)
            lines = found.module.lines[found.lineno - 1 : found.endlineno]
            return _flat(" ".join(line.partition("  # ")[2].partition("# ")[0] for line in lines))
    return ""


def prose(cls: type) -> str:
    """The docstring of a class, without its list of attributes."""
    written = _read(cls).docstring
    text = written.value.partition("\nAttributes:")[0] if written else ""
    return _escaped(text.strip())


def _read(cls: type) -> Any:
    """The class as it is written."""
    return _package()[f"{cls.__module__.removeprefix('mjx_hkl.')}.{cls.__qualname__}"]


@functools.cache
def _package() -> Any:
    return griffe.load("mjx_hkl")


def _flat(text: str) -> str:
    """In one line, that may stand in a table."""
    return _escaped(" ".join(text.split()))


def _escaped(text: str) -> str:
    """Markdown that shows the text as it is: no tags, no emphasis by stars, no links."""
    return text.replace("<", "&lt;").replace("*", "\\*")


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table in Markdown; the column of the paper only where a row has something in it."""
    if not rows:
        return ""
    used = [i for i, _ in enumerate(header) if header[i] != "paper" or any(row[i] for row in rows)]
    lines = [[row[i].replace("|", "\\|") for i in used] for row in (header, *rows)]
    lines.insert(1, ["---"] * len(used))
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f'<div class="fields" markdown>\n\n{text}\n\n</div>'
