"""Python files of a user's own: executed with the modules beside them that they import, where they may run.

Code that lies in a run or in an exported agent, or that one of these names, may come from somebody else. It
runs if this user has trained with the same bytes before, or trusts the folder.
"""

import ast
import contextlib
import dataclasses
import hashlib
import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterable, Iterator
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from mjx_hkl.errors import UserError

MANIFEST = "files/digests.json"
"""In a run or an exported agent: lists the user's files that were copied into it."""
PREFIX = "mjx_hkl_user_"
"""Begins the names of modules that were loaded from a file."""


@dataclasses.dataclass(frozen=True)
class Source:
    """A file as it was read."""

    path: Path
    content: bytes

    @property
    def sha256(self) -> str:
        """Of the content."""
        return hashlib.sha256(self.content).hexdigest()


@dataclasses.dataclass(frozen=True)
class Loaded:
    """The module of a file, and all that was executed for it: the file and the modules beside it."""

    module: ModuleType
    sources: tuple[Source, ...]


_loaded: dict[Path, Loaded] = {}  # one class for one file, however often it is named
_trusted: set[Path] = set()  # folders, in this process


def load(path: Path) -> Loaded:
    """Executes a file, once.

    A module beside it is found before others of its name, but for those of Python and those imported already.

    Raises:
      UserError: it lies in a run or an agent and may not run.
      Exception: whatever it raises.
    """
    path = absolute(path)
    if path not in _loaded:
        modules = _read(path)
        home = home_of(path)
        if home:
            _require_known(modules.values(), home)
        _loaded[path] = Loaded(_executed(path, modules), tuple(modules.values()))
    return _loaded[path]


def sources_of(path: Path) -> tuple[Source, ...]:
    """What `load` executed of a file, or would."""
    path = absolute(path)
    return _loaded[path].sources if path in _loaded else tuple(_read(path).values())


def absolute(path: Path | str) -> Path:
    """The absolute path, without `..`."""
    return Path(os.path.abspath(path))


def require_known(paths: Iterable[Path], folder: Path) -> None:
    """Raises UserError for a file, or a module beside it that it imports, that may not run.

    Args:
      paths: Python files; one that does not exist is left to whoever loads it.
      folder: the run or the agent that names them.
    """
    for path in paths:
        if path.is_file():
            _require_known(_read(absolute(path)).values(), absolute(folder))


def home_of(path: Path) -> Path | None:
    """The run or the exported agent that a file lies in, if it lies in one."""
    return next((folder for folder in absolute(path).parents if _is_home(folder)), None)


def trust(folder: Path | str) -> None:
    """From now on this process runs code of the run or agent, and of those inside of it."""
    _trusted.add(absolute(folder))


def remember(sources: Iterable[Source]) -> None:
    """Code that this user runs from now on wherever it lies; nothing happens where nothing can be written."""
    known = _known()
    lines = [f"{x.sha256}  {json.dumps(str(x.path))}\n" for x in sources if x.sha256 not in known]
    if lines:
        with contextlib.suppress(OSError):
            _store().parent.mkdir(parents=True, exist_ok=True)
            with _store().open("a", encoding="utf-8") as file:
                file.writelines(lines)


def _is_home(folder: Path) -> bool:
    if (folder / "agent.json").is_file():
        return True
    if not (folder / "recipe.toml").is_file():
        return False
    has_checkpoint = any(path.name.isdigit() for path in folder.glob("checkpoints/*"))
    return has_checkpoint or any((folder / part).is_file() for part in ("metrics.jsonl", MANIFEST))


def _require_known(sources: Iterable[Source], folder: Path) -> None:
    if any(trusted in (folder, *folder.parents) for trusted in _trusted):
        return
    known = _known()
    for source in sources:
        if source.sha256 not in known:
            raise UserError(
                f"{os.path.relpath(source.path, folder)} in {folder} is code that you have not trained with:"
                " look at it first, then run it with --trust-code (from Python: trust_code=True)"
            )


def _known() -> set[str]:
    try:
        lines = _store().read_text(encoding="utf-8").splitlines()
    except OSError:
        return set()
    return {line.partition(" ")[0] for line in lines}


def _store() -> Path:
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(state, "mjx-hkl", "known-code")


def _read(path: Path) -> dict[str, Source]:
    """The file, under the name "", and by name the modules beside it that it and they import."""
    found, waiting = {"": Source(path, path.read_bytes())}, [""]
    while waiting:
        module = waiting.pop()
        for name in _imports(found[module], module):
            file = _beside(path.parent, name)
            if file and name not in found:
                found[name] = Source(file, file.read_bytes())
                waiting.append(name)
    return found


def _imports(source: Source, module: str) -> Iterator[str]:
    """Full names of modules that a module imports, or may; packages before what is in them."""
    try:
        tree = ast.parse(source.content)
    except (SyntaxError, ValueError):  # is told when the file is executed
        return
    package = module.split(".") if source.path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            outer = package[: len(package) + 1 - node.level] if node.level else []
            base = [*outer, *(node.module.split(".") if node.module else [])]
            names = [".".join([*base, alias.name]) for alias in node.names]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:n]) for n in range(1, len(parts) + 1))


def _beside(folder: Path, name: str) -> Path | None:
    place = folder.joinpath(*name.split("."))
    files = (place / "__init__.py", place.with_name(f"{place.name}.py"))
    file = next((file for file in files if file.is_file()), None)
    top = name.partition(".")[0]
    if file is None or top in sys.stdlib_module_names or top == "mjx_hkl":
        return None
    imported = sys.modules.get(top)
    if imported is None or isinstance(getattr(imported, "__loader__", None), _Beside):
        return file
    return file if folder in Path(getattr(imported, "__file__", None) or "").parents else None


def _executed(path: Path, modules: dict[str, Source]) -> ModuleType:
    name = f"{PREFIX}{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    beside = {module: source for module, source in modules.items() if module}
    finder = _Beside({**beside, name: modules[""]})
    others = {module: sys.modules.pop(module) for module in beside if module in sys.modules}
    sys.meta_path.insert(0, finder)
    try:
        return importlib.import_module(name)
    finally:
        sys.meta_path.remove(finder)
        sys.modules.update(others)


class _Beside(MetaPathFinder, Loader):
    """Finds modules by name among sources, and executes what was read: no bytecode that lies beside it."""

    def __init__(self, sources: dict[str, Source]):
        self._sources = sources

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """The module's spec, where it is among the sources."""
        if fullname not in self._sources:
            return None
        file = self._sources[fullname].path
        inner = [] if file.name == "__init__.py" else None
        return importlib.util.spec_from_file_location(
            fullname, file, loader=self, submodule_search_locations=inner
        )

    def exec_module(self, module: ModuleType) -> None:
        """Executes the module's source."""
        source = self._sources[module.__name__]
        exec(compile(source.content, str(source.path), "exec"), module.__dict__)
