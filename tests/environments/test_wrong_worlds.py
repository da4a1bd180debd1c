"""Worlds that cannot be meant: each is refused in one line that says what is wrong, before anything runs."""

import dataclasses
import re
from pathlib import Path
from typing import get_args

import pytest

from mjx_hkl.config import from_table, to_table
from mjx_hkl.environments import load_environment, make_world
from mjx_hkl.environments.arenas import ARENAS
from mjx_hkl.environments.bodies import ProprioceptionConfig
from mjx_hkl.environments.boxes import BoxesConfig
from mjx_hkl.environments.composition import EnvironmentConfig, complete_description
from mjx_hkl.environments.grid import GridConfig
from mjx_hkl.environments.physics import PhysicsConfig
from mjx_hkl.environments.randomization import RandomizationConfig
from mjx_hkl.environments.tasks import TASKS
from mjx_hkl.errors import UserError

AREA = '[arena]\nkind = "area"'
CORRIDOR = '[arena]\nkind = "corridor"\nfall_height = -1.0'
GO = '[task]\nkind = "go_to_target"'
MOVE = '[task]\nkind = "move_box"\n[boxes]'
GAP = '[task]\nkind = "gap"'
SITE = "<site name='s'/>"
MOTOR = "<actuator><motor site='s' gear='1 0 0 0 0 0'/></actuator>"


def body(torso, rest=MOTOR, pos="0 0 .2", attributes=""):
    return (
        f"<mujoco><worldbody><body name='torso' pos='{pos}' {attributes}>{torso}{SITE}</body></worldbody>"
        f"{rest}</mujoco>"
    )


def ball(geom="<geom name='hull' size='.1'/>", **more):
    return body("<freejoint/>" + geom, **more)


def hull(kind, size):
    return ball(f"<geom name='hull' type='{kind}' size='{size}'/>", pos="0 0 1")


def refusal(folder, *parts, xml=None, engine="auto"):
    """The one line that a world is refused with."""
    Path(folder, "mine.xml").write_text(xml or ball())
    Path(folder, "mine.toml").write_text("\n".join(['body = "mine.xml"', *parts]))
    with pytest.raises(UserError) as refused:
        make_world(str(Path(folder, "mine.toml")), engine)
    message = str(refused.value)
    assert "\n" not in message
    return message


def task_file(
    folder,
    observe="{'beacon': jnp.zeros(2)}",
    reward="Outcome(jnp.zeros(()), jnp.zeros(()))",
    start="",
    symmetry="observation",
    relabel="observation, *jnp.zeros((2, *observation['beacon'].shape[:-1]))",
):
    Path(folder, "task.py").write_text(
        "import dataclasses\nimport jax.numpy as jnp\nfrom mjx_hkl.environments.tasks import Outcome, Start\n"
        "@dataclasses.dataclass(frozen=True)\nclass Mine:\n"
        f"    def reset(self, key, stage):\n        return {start or 'Start((), jnp.zeros(2))'}\n"
        f"    def observe(self, state, scene):\n        return {observe}\n"
        f"    def reward(self, state, scene):\n        return {reward}\n"
        f"    def symmetry(self, key, observation):\n        return {symmetry}\n"
        f"    def relabel(self, key, observation):\n        return {relabel}\n"
    )
    return '[task]\nkind = "task.py:Mine"'


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"observe": "{'proprioception': jnp.zeros(2)}"}, "'proprioception' is what the body feels"),
        ({"observe": "{'': jnp.zeros(2)}"}, "must have a name like 'targets', not ''"),
        ({"observe": "{3: jnp.zeros(2)}"}, "must have a name like 'targets', not 3"),
        ({"observe": "{'a.b': jnp.zeros(2)}"}, "must have a name like 'targets', not 'a.b'"),
        ({"observe": "jnp.zeros(2)"}, "observe must give a dict of named groups"),
        ({"observe": "{'beacon': {'x': jnp.zeros(2)}}"}, "'beacon' is no array of numbers"),
        ({"start": "Start((), jnp.zeros(3))"}, "reset gives position of shape (3,), not (2,)"),
        ({"start": "Start((), jnp.zeros(2), jnp.zeros(1))"}, "reset gives heading of shape (1,), not ()"),
        ({"start": "Start((), jnp.zeros(2), boxes=jnp.zeros((1, 2)))"}, "boxes of shape (1, 2), not (0, 2)"),
        ({"start": "jnp.zeros(2)"}, "reset must give a Start"),
        ({"reward": "Outcome(jnp.zeros(1), jnp.zeros(()))"}, "gives a reward of shape (1,), not ()"),
        ({"reward": "Outcome(jnp.zeros(()), jnp.zeros(2))"}, "gives a success of shape (2,), not ()"),
        ({"reward": "Outcome(jnp.zeros(()), jnp.zeros(()), jnp.zeros(3))"}, "reward gives a state"),
        ({"reward": "jnp.zeros(())"}, "reward must give an Outcome"),
        ({"symmetry": "{'beacon': observation['beacon']}"}, "gives {'beacon': '2'}: it must keep all"),
        ({"symmetry": "{k: x[:1] for k, x in observation.items()}"}, "also with axes before them"),
        ({"relabel": "observation"}, "and give a reward and a success for each"),
        ({"relabel": "observation, jnp.zeros(()), jnp.zeros(())"}, "for each, also with axes before"),
    ],
)
def test_a_task_that_does_not_fit(tmp_path, wrong, expected):
    assert expected in refusal(tmp_path, AREA, task_file(tmp_path, **wrong))


@pytest.mark.parametrize(
    ("xml", "parts", "expected"),
    [
        (
            hull("cylinder", ".1 .1"),
            (AREA, MOVE),
            "'hull' is a cylinder, which cannot collide with the box 'box0'",
        ),
        (
            hull("ellipsoid", ".1 .1 .2"),
            (AREA, MOVE),
            "'hull' is a ellipsoid, which cannot collide with the box",
        ),
        (hull("cylinder", ".1 .1"), (CORRIDOR, GAP), "cannot collide with the box 'near_platform'"),
        (hull("plane", "1 1 1"), (AREA, GO), "plane only allowed in static bodies"),
    ],
)
def test_geoms_that_nothing_collides_with(tmp_path, xml, parts, expected):
    assert expected in refusal(tmp_path, *parts, xml=xml)


HILLS = """
import dataclasses
import jax.numpy as jnp
import mujoco
from mjx_hkl.environments.arenas import Area

@dataclasses.dataclass(frozen=True)
class Hills(Area):
    def build(self, spec):
        spec.add_hfield(name="hills", nrow=3, ncol=3, size=[5, 5, 0.1, 0.1], userdata=[0.0] * 8 + [1.0])
        spec.worldbody.add_geom(name="hills", type=mujoco.mjtGeom.mjGEOM_HFIELD, hfieldname="hills")
        return ["hills"]
"""


@pytest.mark.parametrize("kind", ["cylinder", "ellipsoid", "capsule"])
def test_a_height_field_carries_what_mjx_lets_it(tmp_path, kind):
    """MJX's documentation: height fields collide with spheres, capsules, boxes and meshes."""
    (tmp_path / "hills.py").write_text(HILLS)
    arena, xml = '[arena]\nkind = "hills.py:Hills"', hull(kind, ".1 .1 .1")
    if kind == "capsule":
        (tmp_path / "mine.xml").write_text(xml)
        (tmp_path / "mine.toml").write_text(f'body = "mine.xml"\n{arena}\n{GO}')
        make_world(str(tmp_path / "mine.toml"))
    else:
        message = refusal(tmp_path, arena, GO, xml=xml)
        assert f"'hull' is a {kind}, which cannot collide with the hfield 'hills'" in message


@pytest.mark.parametrize("kind", ["cylinder", "ellipsoid"])
def test_what_collides_with_a_plane_but_with_no_box_is_taken_in_an_area(tmp_path, kind):
    """MJX's documentation: plane against any of them is supported. Of the body's own geoms none collide."""
    size = ".1 .1 .1"
    geoms = f"<geom name='hull' type='{kind}' size='{size}'/><geom name='keel' type='box' size='{size}'/>"
    (tmp_path / "mine.xml").write_text(ball(geoms, pos="0 0 .2"))
    (tmp_path / "mine.toml").write_text(f'body = "mine.xml"\n{AREA}\n{GO}')
    for engine in ("mjx", "mujoco"):
        make_world(str(tmp_path / "mine.toml"), engine)


@pytest.mark.parametrize("parts", [(AREA, GO), (AREA, MOVE), (CORRIDOR, GAP)])
def test_a_body_that_starts_in_the_ground(tmp_path, parts):
    """A sphere of 0.1 m whose centre is 0.03 m above the ground is 0.07 m deep in it."""
    message = refusal(tmp_path, *parts, xml=ball(pos="0 0 .03"))
    assert "starts 0.07 m deep in the ground: geom 'hull' in" in message
    assert "raise the pos of its torso by 0.07 m" in message


def test_a_body_that_stands_on_the_ground_is_taken(tmp_path):
    (tmp_path / "mine.xml").write_text(ball(pos="0 0 .0999"))
    for parts in ((AREA, GO), (CORRIDOR, GAP)):
        (tmp_path / "mine.toml").write_text("\n".join(['body = "mine.xml"', *parts]))
        make_world(str(tmp_path / "mine.toml"))


def test_a_body_that_starts_outside_of_the_arena(tmp_path):
    corridor = CORRIDOR.replace("-1.0", "0.5")
    assert "starts outside of the arena" in refusal(tmp_path, corridor, GAP)


HINGED = "<freejoint/><geom name='hull' size='.1'/><body>{}"
HINGED += "<geom size='.02' pos='0 0 .3' contype='0' conaffinity='0'/></body>"
SLIDES = "<joint type='slide' axis='{}'/><joint type='slide' axis='0 1 0'/><joint type='slide' axis='0 0 1'/>"
SLIDES += "<joint type='hinge' axis='0 0 1'/><geom name='hull' size='.1'/>"
LIGHT = "<geom name='hull' size='.1' mass='0'/>"
FILTERED = (
    "<actuator><general name='lazy' site='s' gear='1 0 0 0 0 0' dyntype='filter' dynprm='.1'/></actuator>"
)
MOCAP = "<mujoco><worldbody><body name='hand' mocap='true'/>" + ball().removeprefix("<mujoco><worldbody>")
NESTED = body("<geom name='base' size='.1' contype='0' conaffinity='0'/>").replace("'torso'", "'base'", 1)


@pytest.mark.parametrize(
    ("xml", "expected"),
    [
        (ball(LIGHT), "mass and inertia of moving bodies must be larger than"),
        (body("<geom name='hull' size='.1'/>"), "needs a free joint, or slides x, y, z and an upright hinge"),
        (body(SLIDES.format("0 1 0")), "needs a free joint, or slides x, y, z and an upright hinge"),
        (ball(attributes="euler='90 0 0'"), "must lie in the worldbody itself, and not be turned"),
        (body(HINGED.format("<joint name='neck' type='ball'/>")), "joint 'neck' is a ball joint"),
        (ball(rest=FILTERED), "actuator 'lazy' has an activation, which no state"),
        (MOCAP, "mocap body"),
        (ball("<geom name='hull' size='.1' contype='0' conaffinity='0'/>"), "falls through the ground"),
        (ball(rest=""), "has no actuators"),
        (ball(rest=MOTOR + "<option><flag contact='disable'/></option>"), "switches off contact"),
        (ball(rest=MOTOR + "<option><flag actuation='disable'/></option>"), "switches off actuation"),
        (body(HINGED.format("<joint name='neck' damping='-1'/>")), "joint 'neck' has a negative damping"),
        (ball(rest=MOTOR.replace("1 0", "nan 0", 1)), "accelerates without bound"),
        (ball(rest=MOTOR.replace("1 0", "1e300 0", 1)), "accelerates without bound"),
        (ball(rest=MOTOR + "<option gravity='0 0 -1e30'/>"), "accelerates without bound"),
    ],
)
def test_a_body_that_cannot_be_meant(tmp_path, capfd, monkeypatch, xml, expected):
    monkeypatch.chdir(tmp_path)
    assert expected in refusal(tmp_path, AREA, GO, xml=xml)
    assert capfd.readouterr().out == ""  # MuJoCo's own warnings would spoil --json, and be written to a file
    assert not Path("MUJOCO_LOG.TXT").exists()


def test_what_an_engine_cannot_simulate(tmp_path):
    """MJX knows elliptic cones for contacts with friction only."""
    elliptic = body(
        SLIDES.format("1 0 0").replace("name='hull'", "name='hull' condim='1'"),
        rest=MOTOR + "<option cone='elliptic'/>",
        pos="0 0 .1",
    )
    assert "engine 'mjx' cannot simulate the world" in refusal(tmp_path, AREA, GO, xml=elliptic, engine="mjx")


TABLES = [
    PhysicsConfig,
    ProprioceptionConfig,
    BoxesConfig,
    GridConfig,
    EnvironmentConfig,
    RandomizationConfig,
]
TABLES += [*ARENAS.known.values(), *TASKS.known.values()]
REQUIRED = {
    EnvironmentConfig: {"body": "ball", "arena": {"kind": "area"}, "task": {"kind": "go_to_target"}},
    GridConfig: {"kind": "grid"},
}


def numbers(cls):
    """Names of the fields of a table that are numbers, and whether they are whole."""
    for field in dataclasses.fields(cls):
        kind = (get_args(field.type) or (field.type,))[0]
        if kind in (int, float):
            yield field.name, kind


@pytest.mark.parametrize(
    ("cls", "name", "kind"), [(cls, *number) for cls in TABLES for number in numbers(cls)], ids=str
)
def test_every_number_of_a_world_has_bounds(cls, name, kind):
    """No field takes what memory or float32 cannot hold, or what is no number."""
    wrong = [2**40, -(2**40)] if kind is int else [1e300, -1e300, float("nan"), float("inf")]
    for value in wrong:
        with pytest.raises(UserError, match=rf"^mine\.toml: {name}: "):
            from_table(cls, {**REQUIRED.get(cls, {}), name: value}, "mine.toml")


def test_a_typo_in_low_level_information_names_it_and_its_file(tmp_path):
    (tmp_path / "mine.toml").write_text(
        'extends = "ball-go-to-target"\nlow_level_information = ["propioception"]'
    )
    with pytest.raises(UserError) as refused:
        make_world(str(tmp_path / "mine.toml"), "mujoco")
    expected = (
        "mine.toml: low_level_information: unknown observation group 'propioception'; did you mean prop"
    )
    assert expected in str(refused.value)


def test_a_number_without_bounds_is_clear_on_the_way_from_a_file(tmp_path):
    (tmp_path / "mine.toml").write_text('extends = "ball-go-to-target"\ntask.num_targets = 1099511627776')
    with pytest.raises(
        UserError, match=r"\[task\]: num_targets: .*less than or equal to 64, not 1099511627776"
    ):
        load_environment(str(tmp_path / "mine.toml"))


def test_an_arena_that_names_no_geom(tmp_path):
    (tmp_path / "arena.py").write_text(
        "import dataclasses\nfrom mjx_hkl.environments.arenas import Area\n"
        "@dataclasses.dataclass(frozen=True)\nclass Mine(Area):\n"
        "    def build(self, spec):\n        return ['flor']\n"
    )
    assert "build returns 'flor', which is the name of no geom" in refusal(
        tmp_path, '[arena]\nkind = "arena.py:Mine"', GO
    )


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (("arena = 3", GO), "[arena] must be a table or the name of a kind, not 3"),
        (("[arena]\nsize = 8.0", GO), "[arena] needs a kind; known: area, corridor"),
        (
            (AREA, '[task]\nkind = "json:JSONDecoder"'),
            "must be a dataclass with methods reset, observe, reward",
        ),
        ((AREA, '[task]\nkind = "mine.py:Task"'), "mine.py does not exist"),
    ],
)
def test_kinds(tmp_path, parts, expected):
    assert expected in refusal(tmp_path, *parts)


def test_a_description_is_a_world_again():
    """What an agent keeps of its world, and what an older version kept of it: less, at today's defaults."""
    config = load_environment("ball-move-box-easy")
    table = to_table(config)
    assert from_table(EnvironmentConfig, table, "description") == config
    older = {**table, "arena": {name: x for name, x in table["arena"].items() if name != "margin"}}
    assert complete_description(older) == table
    assert complete_description({"name": "brax:fast"}) == {"name": "brax:fast"}
    assert re.search("kind", str(table["task"]))
