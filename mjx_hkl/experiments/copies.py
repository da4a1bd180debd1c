"""A user's own files in a run or an exported agent: copied in, found there again, checked.

They are what a recipe names by path, and what these files need: worlds, bodies with their meshes, and code.
They keep their places relative to one another under `files/`, so what one says of another stays true. What
comes with the package, or is named as `package.module:Class`, is not copied. `files/digests.json` lists them.
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomli_w

from mjx_hkl import resources
from mjx_hkl.config import from_table, to_table
from mjx_hkl.environments.bodies import files_of_body
from mjx_hkl.environments.composition import read_environment
from mjx_hkl.errors import UserError
from mjx_hkl.tables import code_in, files_extended, with_files
from mjx_hkl.user_code import MANIFEST, Source, absolute, require_known, sources_of

_FOLDER = "files"
_COPY = re.compile(rf"(\.\./)*{_FOLDER}/.+")
_ABSOLUTE = re.compile(r"""(?<=["'])/[^"']+(?=["'])""")


@dataclasses.dataclass(frozen=True)
class UserFile:
    """A file to copy.

    Attributes:
      path: where it lies.
      content: as it is copied: what it names, it names relative to itself.
      originals: SHA-256 of the files that it is made of, by path.
    """

    path: Path
    content: bytes
    originals: Mapping[Path, str]


@dataclasses.dataclass(frozen=True)
class _Original:
    """What a copy was made of, and its name in the run."""

    sha256: str
    copy: str


@dataclasses.dataclass(frozen=True)
class _Manifest:
    """SHA-256 of the copies, by their places; in a run also the files that they were made of, by path."""

    files: dict[str, str] = dataclasses.field(default_factory=dict)
    originals: dict[str, _Original] = dataclasses.field(default_factory=dict)


def user_files(table: Mapping[str, Any]) -> tuple[UserFile, ...]:
    """The files that a recipe's table names by path, and those which they need; none of the package.

    Raises:
      UserError: a world's file cannot be read.
    """
    code = code_in(table)
    found: dict[Path, UserFile] = {}
    for world in _worlds(table):
        tables = read_environment(world)
        found[world] = _world_file(world, tables)
        code += code_in(tables)
        body = str(tables.get("body", ""))
        if body.endswith(".xml"):
            found |= {file.path: file for file in _body_files(absolute(body))}
    for path in code:
        for source in sources_of(path):
            found[source.path] = UserFile(source.path, source.content, {source.path: source.sha256})
    return tuple(found.values())


def _worlds(table: Any) -> list[Path]:
    """The files of environments that a recipe's table names, its ladder's among them."""
    if isinstance(table, list):
        return [world for value in table for world in _worlds(value)]
    if not isinstance(table, Mapping):
        return []
    given = table.get("environment")
    names = given if isinstance(given, list) else [given]
    own = [absolute(name) for name in names if isinstance(name, str) and name.endswith(".toml")]
    return own + _worlds(list(table.values()))


def _world_file(path: Path, tables: dict[str, Any]) -> UserFile:
    """The environment with what it extends, which no copy does any more."""

    def relative(given: str) -> str:
        is_file = given.endswith((".xml", ".py")) and os.path.isfile(given)
        return os.path.relpath(given, path.parent) if is_file else given

    package = resources.folder("envs").resolve()
    chain = files_extended("environment", path, "envs")
    originals = {absolute(file): _sha256(file) for file in chain if package not in file.resolve().parents}
    return UserFile(path, tomli_w.dumps(with_files(tables, relative)).encode(), originals)


def _body_files(path: Path) -> list[UserFile]:
    return [UserFile(file, _body_content(file), {file: _sha256(file)}) for file in files_of_body(path)]


def _body_content(file: Path) -> bytes:
    """The file's; in MJCF, paths that are absolute made relative."""
    content = file.read_bytes()
    if file.suffix != ".xml":
        return content

    def relative(found: re.Match) -> str:
        return os.path.relpath(found[0], file.parent) if os.path.exists(found[0]) else found[0]

    text = content.decode("utf-8", "surrogateescape")
    return _ABSOLUTE.sub(relative, text).encode("utf-8", "surrogateescape")


def told_body(given: str) -> str:
    """What tells a body from others: its name, or its file's with a digest of all that it is made of."""
    if not Path(given).is_file():
        return given
    digests = [Source(file.path, file.content).sha256 for file in _body_files(absolute(given))]
    return f"{Path(given).name} ({hashlib.sha256(' '.join(digests).encode()).hexdigest()[:8]})"


@dataclasses.dataclass(frozen=True)
class Copies:
    """A user's files, and where they are to lie.

    Attributes:
      names: by path, relative to the run or agent.
      new: those not there yet.
    """

    names: Mapping[Path, str]
    new: tuple[UserFile, ...]

    @classmethod
    def of(cls, files: tuple[UserFile, ...], run: Path | None = None) -> "Copies":
        """Places for the files; those that the run has, or the run of which it is a stage, stay there."""
        names = {}
        if run:
            there = _holder(absolute(run)) / _FOLDER
            held = [file.path for file in files if there in file.path.parents]
            names = {path: os.path.relpath(path, run) for path in held}
        new = tuple(file for file in files if file.path not in names)
        if new:
            top = os.path.commonpath([file.path.parent for file in new])
            names |= {file.path: f"{_FOLDER}/{os.path.relpath(file.path, top)}" for file in new}
        return cls(names, new)

    def named(self, table: Any) -> Any:
        """The table, its files named by their places."""
        return with_files(table, lambda given: self.names.get(absolute(given), given) if given else given)

    def told(self, text: str) -> str:
        """The text, its files named by their places."""
        for path, name in self.names.items():
            text = text.replace(str(path), name)
        return text

    def write(self, folder: Path, with_originals: bool) -> None:
        """Writes the new files; where there are none, nothing.

        Args:
          folder: the run or agent.
          with_originals: notes where they came from, for `edited` and `inside`; not in an agent.
        """
        if not self.new:
            return
        about = _manifest(folder)
        for file in self.new:
            name = self.names[file.path]
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(file.content)
            about.files[name] = hashlib.sha256(file.content).hexdigest()
            for path, digest in file.originals.items() if with_originals else ():
                if path == file.path or str(path) not in about.originals:
                    about.originals[str(path)] = _Original(digest, name)
        (folder / MANIFEST).write_text(json.dumps(to_table(about), indent=2) + "\n", encoding="utf-8")


def located(folder: Path, table: Any) -> Any:
    """The table, as it was written in a run or agent, its copies named by their paths."""
    return with_files(table, lambda given: str(absolute(folder / given)) if _COPY.fullmatch(given) else given)


def inside(table: dict[str, Any], run: Path) -> dict[str, Any]:
    """The table, files that the run has copies of replaced by these."""
    holder = _holder(absolute(run))
    manifest = _manifest(holder)

    def copy(given: str) -> str:
        known = manifest.originals.get(str(absolute(given))) if given else None
        return str(holder / known.copy) if known and known.copy in manifest.files else given

    return with_files(table, copy)


def by_content(table: dict[str, Any], run: Path) -> dict[str, Any]:
    """The table, the run's copies replaced by their digests: equal wherever runs lie."""
    holder = _holder(absolute(run))
    digests = {str(holder / name): digest for name, digest in _manifest(holder).files.items()}
    return with_files(table, lambda given: digests.get(given, given))


def edited(run: Path) -> str:
    """One line that says which of the user's files have changed since the run began; empty where none has."""
    originals = _manifest(run).originals
    changed = [
        path
        for path, known in sorted(originals.items())
        if os.path.isfile(path) and _sha256(path) != known.sha256
    ]
    if not changed:
        return ""
    have = "has" if len(changed) == 1 else "have"
    return f"{', '.join(changed)} {have} changed since {run} began: it goes on with its own copy"


def check(folder: Path, table: Any) -> None:
    """Checks a run or an agent before anything of it is loaded.

    Args:
      folder: the run or agent.
      table: its recipe, `located`.

    Raises:
      UserError: a copy is missing or has changed, code may not run, or an agent names a file elsewhere.
    """
    folder = absolute(folder)
    holder = _holder(folder)
    listed = _manifest(holder).files
    for name, digest in listed.items():
        _require_whole(holder / name, digest)

    is_agent = (folder / "agent.json").is_file()

    def require_inside(given: str) -> str:
        is_file, own = given.endswith((".toml", ".xml", ".py")), (folder / _FOLDER).resolve()
        if is_agent and is_file and own not in (folder / given).resolve().parents:
            raise UserError(f"{folder} names {given}, which is outside of it; an agent holds all its files")
        return given

    def require_listed(given: str) -> str:
        file = absolute(folder / require_inside(given))
        if folder / _FOLDER in file.parents and str(file.relative_to(folder)) not in listed:
            raise UserError(
                f"{folder} does not list {given} in {MANIFEST}; copy it again, or export it again"
            )
        return given

    with_files(table, require_listed)
    code = code_in(table)
    for world in filter(Path.is_file, _worlds(table)):
        tables = read_environment(world)
        if is_agent:
            with_files([tables, *map(str, files_extended("environment", world, "envs"))], require_inside)
            body = str(tables.get("body", ""))
            for file in files_of_body(absolute(body)) if body.endswith(".xml") else ():
                require_inside(str(file))
        if holder / _FOLDER not in world.parents:  # of others it is asked when they are built
            code += code_in(tables)
    require_known(code, folder)


def _require_whole(path: Path, digest: str) -> None:
    if not path.is_file():
        raise UserError(f"{path} is missing; copy the run or agent again, or export it again")
    if _sha256(path) != digest:
        raise UserError(
            f"{path} has changed since it was written; copy the run or agent again, or export it again"
        )


def _holder(folder: Path) -> Path:
    """Where the copies lie of a run or agent: in itself, or of a ladder's stage in its run."""
    is_stage = folder.parent.name == "ladder" and not (folder / MANIFEST).is_file()
    return folder.parents[1] if is_stage and (folder.parents[1] / MANIFEST).is_file() else folder


def _manifest(folder: Path) -> _Manifest:
    """What the folder lists; empty where it has no copies."""
    path = folder / MANIFEST
    if not path.is_file():
        return _Manifest()
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not isinstance(about, dict):
        raise UserError(f"{path} does not list files; copy the run or agent again")
    manifest = from_table(_Manifest, about, str(path))
    if any(not name.startswith(f"{_FOLDER}/") or ".." in Path(name).parts for name in manifest.files):
        raise UserError(f"{path} lists files that lie elsewhere")
    return manifest


def _sha256(path: Path | str) -> str:
    return Source(absolute(path), Path(path).read_bytes()).sha256
