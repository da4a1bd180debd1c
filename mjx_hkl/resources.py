"""Where the data that travels with the package lies: `envs/`, `train/`, `devices/` and `checkpoints/`."""

import difflib
import os
import tomllib
from pathlib import Path
from typing import Any

from mjx_hkl.errors import UserError, unknown_name

_PACKAGE = Path(__file__).parent


def folder(name: str) -> Path:
    """The folder of that name: the checkout's where there is one, else the installed wheel's."""
    checkout = _PACKAGE.parent / name
    return checkout if (_PACKAGE.parent / "pyproject.toml").exists() else _PACKAGE / "data" / name


def find(what: str, given: str, folder_name: str, suffix: str) -> Path:
    """The file `given` names: a path to a `suffix` file, or the stem of one in the data folder.

    Raises:
      UserError: there is no such file or name.
    """
    path = Path(given)
    if path.suffix == suffix:
        if path.is_file():
            return path
        raise UserError(f"{what} file {given!r} does not exist")
    named = folder(folder_name) / f"{given}{suffix}"
    if not named.is_file():
        raise unknown_name(what, given, names(folder_name, suffix))
    return named


def refuse_environment(given: str) -> None:
    """Raises UserError, with what to type instead, where a recipe is asked for by an environment's name."""
    recipes = names("train", ".toml")
    if given in recipes or given not in names("envs", ".toml"):
        return
    of_body = [name for name in recipes if name.startswith(given.partition("-")[0])]
    (near, *_) = difflib.get_close_matches(given, of_body or recipes, cutoff=0.0)
    raise UserError(
        f"{given} is an environment, not a recipe; train one there: mjx-hkl train {near}"
        f" --environment {given}"
    )


def beside(file: Path, given: str) -> str:
    """The path of the file that `given` names in the folder of `file`, where there is one; else `given`."""
    path = os.path.abspath(file.parent / given)
    return path if given and os.path.isfile(path) else given


def names(folder_name: str, suffix: str) -> list[str]:
    """The stems of the data folder's files, sorted."""
    return sorted(path.stem for path in folder(folder_name).glob(f"*{suffix}"))


def read_toml(path: Path) -> dict[str, Any]:
    """The tables of a TOML file.

    Raises:
      UserError: the file cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not valid TOML: {error}") from error
