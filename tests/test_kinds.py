"""Kinds: classes that a table names, ours or a user's."""

import dataclasses

import pytest

from mjx_hkl.config import to_table
from mjx_hkl.errors import UserError
from mjx_hkl.kinds import Kinds
from mjx_hkl.models.priors import AR1, PRIORS, Isotropic
from mjx_hkl.tables import merged, read_extended

MINE = """
import dataclasses
from mjx_hkl.models.priors import Isotropic

@dataclasses.dataclass(frozen=True)
class Mine(Isotropic):
    number: int = 3

class Plain:
    pass

@dataclasses.dataclass(frozen=True)
class Stranger:
    pass
"""


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path / "mine.py"


def test_a_table_a_name_and_an_instance_are_built_alike():
    assert PRIORS.build({"kind": "ar1"}) == PRIORS.build("ar1") == PRIORS.build(AR1()) == AR1(0.95)
    assert PRIORS.build({}) == Isotropic()  # the default kind
    assert PRIORS.name_of(AR1()) == "ar1"


def test_a_users_class_is_found_again_by_its_name(mine):
    built = PRIORS.build({"kind": f"{mine}:Mine", "number": 5})
    assert to_table(built) == {"number": 5}
    again = PRIORS.build({"kind": PRIORS.name_of(built), "number": 5})
    assert type(again) is type(built)
    assert again == built


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("ar2", "unknown kind of [default_policy.high_level] 'ar2'; did you mean ar1"),
        (3, "must be a table or the name of a kind, not 3"),
        ({"kind": "ar1", "coeficient": 0.5}, "unknown field 'coeficient'; did you mean coefficient"),
        ({"kind": "ar1", "coefficient": 1.5}, "coefficient: input should be less than 1, not 1.5"),
        ("MINE:Mien", "has unknown class 'Mien'; did you mean Mine"),
        ("MINE:Plain", "must be a dataclass"),
        ("MINE:Stranger", "must extend mjx_hkl.models.priors.PriorFields"),
        ({"kind": "MINE:Mine", "number": "x"}, "number: input should be a valid integer, not 'x'"),
        ("nowhere.py:Mine", "nowhere.py does not exist; put the file back, or name another"),
        ("nowhere:Mine", "cannot be imported: No module named 'nowhere'"),
    ],
)
def test_a_mistake_is_one_line(mine, given, says):
    def placed(x):
        return x.replace("MINE", str(mine)) if isinstance(x, str) else x

    given = {k: placed(v) for k, v in given.items()} if isinstance(given, dict) else placed(given)
    with pytest.raises(UserError) as caught:
        PRIORS.build(given)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_raises_is_told_with_its_reason(tmp_path):
    (tmp_path / "broken.py").write_text("1 / 0")
    with pytest.raises(UserError, match="cannot be imported: division by zero"):
        PRIORS.build(f"{tmp_path}/broken.py:Mine")


def test_methods_may_be_asked_for():
    @dataclasses.dataclass(frozen=True)
    class Known:
        pass

    kinds = Kinds("thing", {"known": Known}, requires=("act",))
    with pytest.raises(UserError, match="must be a dataclass with methods act"):
        kinds.build("mjx_hkl.models.priors:AR1")
    with pytest.raises(UserError, match="thing needs a kind; known: known"):
        kinds.build({})


def test_a_kind_replaces_a_table_and_fields_change_it():
    base = {"a": {"kind": "x", "one": 1, "two": {"deep": 1, "kept": 2}}, "b": "y", "c": 1}
    assert merged(base, {"a": {"one": 3, "two": {"deep": 4}}})["a"] == {
        "kind": "x",
        "one": 3,
        "two": {"deep": 4, "kept": 2},
    }
    assert merged(base, {"a": {"kind": "z"}})["a"] == {"kind": "z"}
    assert merged(base, {"a": "z"})["a"] == "z"
    assert merged(base, {"b": {"one": 1}})["b"] == {"kind": "y", "one": 1}
    assert base["b"] == "y"


def test_a_file_names_others_beside_it(tmp_path, mine):
    folder = tmp_path / "inner"
    folder.mkdir()
    (folder / "base.toml").write_text('world = "w.toml"\n[a.b]\nkind = "own.py:Class"\n')
    (folder / "own.py").touch()
    (folder / "w.toml").touch()
    (tmp_path / "top.toml").write_text(
        'extends = "inner/base.toml"\nc = "mine.py:Mine"\n[a]\nd = "none.py:X"\n'
    )
    found = read_extended("recipe", tmp_path / "top.toml", "train", files=("world",))
    assert found == {
        "world": str(folder / "w.toml"),
        "a": {"b": {"kind": f"{folder}/own.py:Class"}, "d": f"{tmp_path}/none.py:X"},
        "c": f"{mine}:Mine",
    }
    (folder / "base.toml").write_text('extends = "../top.toml"')
    with pytest.raises(UserError, match="extends itself"):
        read_extended("recipe", tmp_path / "top.toml", "train")
