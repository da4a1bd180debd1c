"""Python files of a user's own: what runs with them, and what may run."""

import os
import sys

import pytest

from mjx_hkl import user_code
from mjx_hkl.errors import UserError


@pytest.fixture(autouse=True)
def nothing_is_known(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(user_code, "_trusted", set())


def written(folder, **files):
    """The folder with these modules in it."""
    for name, text in files.items():
        path = folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


def loaded(folder, name="main"):
    return user_code.load(folder / f"{name}.py")


def test_modules_beside_a_file_are_those_of_its_own_folder(tmp_path):
    """Also where another folder has modules of the same names; sys.path is as it was."""
    one, other = (
        written(tmp_path / x, main="import shared\nx = shared.X", shared=f"X = {x!r}") for x in "ab"
    )
    path = list(sys.path)
    assert [loaded(folder).module.x for folder in (one, other)] == ["a", "b"]
    assert sys.path == path
    assert not list(tmp_path.rglob("__pycache__"))
    assert [source.path.name for source in loaded(one).sources] == ["main.py", "shared.py"]


def test_a_package_beside_a_file_is_imported_by_every_way(tmp_path):
    modules = {
        "main": "import pack.one\nfrom pack import two\nfrom pack.three import x\ny = pack.one.x + two.x + x",
        "pack/__init__": "",
        "pack/one": "from . import four\nx = four.x",
        "pack/two": "from .four import x",
        "pack/three": "def later():\n    from pack import five\n\nx = 3",
        "pack/four": "x = 10",
        "pack/five": "",
        "stranger": "raise RuntimeError('nobody imports it')",
    }
    folder = written(tmp_path, **modules)
    found = loaded(folder)
    assert found.module.y == 23
    names = {os.path.relpath(source.path, folder) for source in found.sources}
    assert names == {
        "main.py",
        *(f"pack/{x}.py" for x in ("__init__", "one", "two", "three", "four", "five")),
    }


def test_pythons_own_modules_and_those_imported_already_come_first(tmp_path):
    folder = written(tmp_path, main="import json, numpy\nx = json.dumps, numpy.ones", json="", numpy="")
    assert [source.path.name for source in loaded(folder).sources] == ["main.py"]


def test_sources_are_what_was_executed_and_reading_them_executes_nothing(tmp_path):
    folder = written(tmp_path, main="import helper_of_main\nx = 1", helper_of_main="", other="1 / 0")
    loaded(folder)
    written(folder, main="edited")
    assert [source.content[:6] for source in user_code.sources_of(folder / "main.py")] == [b"import", b""]
    assert [source.content for source in user_code.sources_of(folder / "other.py")] == [b"1 / 0"]


def test_a_file_that_fails_is_tried_again(tmp_path):
    folder = written(tmp_path, main="import helper_that_fails", helper_that_fails="1 / 0")
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            loaded(folder)
    written(folder, helper_that_fails="x = 1")
    assert loaded(folder).module.helper_that_fails.x == 1


HOMES = [
    ("agent.json",),
    ("recipe.toml", "metrics.jsonl"),
    ("recipe.toml", "files/digests.json"),
    ("recipe.toml", "checkpoints/160/state"),
]


@pytest.mark.parametrize("parts", HOMES)
def test_code_in_a_run_or_an_agent_runs_where_it_is_known(tmp_path, parts):
    home = tmp_path / "home"
    for part in parts:
        (home / part).parent.mkdir(parents=True, exist_ok=True)
        (home / part).write_text("{}")
    text = {"main": "import helper\nx = helper.x", "helper": "x = 1"}
    written(home / "files", **text)
    with pytest.raises(UserError, match=r"files/main.py in .*home is code that you have not .* --trust-code"):
        loaded(home / "files")
    own = loaded(written(tmp_path / "own", **text))
    user_code.remember(own.sources[:1])
    with pytest.raises(UserError, match=r"files/helper.py in .*home"):
        loaded(home / "files")
    user_code.remember(own.sources)
    assert loaded(home / "files").module.x == 1


def test_a_trusted_folder_is_that_folder_alone(tmp_path):
    for name in ("one", "other"):
        written(tmp_path / name, main="x = 1")
        (tmp_path / name / "agent.json").write_text("{}")
    user_code.trust(tmp_path / "one")
    assert loaded(tmp_path / "one").module.x == 1
    with pytest.raises(UserError, match="other is code"):
        loaded(tmp_path / "other")


def test_bytecode_beside_known_code_does_not_run(tmp_path):
    """A stranger's .pyc that says not to compare it with its source."""
    import py_compile

    text = {"main": "import helper\nx = helper.x", "helper": "x = 'known'"}
    user_code.remember(loaded(written(tmp_path / "own", **text)).sources)
    home = written(tmp_path / "home", **text)
    (home / "agent.json").write_text("{}")
    evil = written(tmp_path / "evil", helper="x = 'evil'") / "helper.py"
    for name in ("main", "helper"):
        py_compile.compile(
            str(evil),
            cfile=py_compile.importlib.util.cache_from_source(str(home / f"{name}.py")),
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )
    assert loaded(home).module.x == "known"


def test_what_cannot_be_noted_is_not_noted(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "file"))
    user_code.remember(loaded(written(tmp_path / "own", main="x = 1")).sources)


def test_a_project_of_ones_own_is_no_run(tmp_path):
    """Also where its recipe is called recipe.toml, and agents were exported beside it."""
    (tmp_path / "recipe.toml").write_text("")
    (tmp_path / "checkpoints" / "mine").mkdir(parents=True)
    assert loaded(written(tmp_path, main="x = 1")).module.x == 1
