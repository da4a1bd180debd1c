"""Mistakes inside a user's task: one line with the file, the line and the method."""

from pathlib import Path

import pytest

from mjx_hkl.cli.main import run
from mjx_hkl.environments import make_world
from mjx_hkl.errors import UserError

TASK = """import dataclasses
import jax.numpy as jnp
import numpy as np
from mjx_hkl.environments.tasks import Outcome, Start

def helper(x):
    return x / 0

@dataclasses.dataclass(frozen=True)
class Mine:
    def reset(self, key, stage):
        return Start({start}, jnp.zeros(2))

    def observe(self, state, scene):
        return {observe}

    def reward(self, state, scene):
        {before}
        return Outcome({reward}, jnp.zeros(()), {state})
"""
GOOD = {"start": "jnp.ones(2)", "observe": "{'beacon': jnp.zeros(2)}", "reward": "jnp.zeros(())"}
GOOD |= {"before": "pass", "state": "None"}
WRONG = [
    (
        {"before": "if scene.frame.position[2] > 0: pass"},
        "18, Mine.reward: `if`, `and`, `or` and `while` need",
    ),
    ({"before": "np.sqrt(scene.frame.position)"}, "18, Mine.reward: NumPy cannot compute with"),
    (
        {"before": "float(scene.frame.position[2])"},
        "18, Mine.reward: a value is asked for that is only known",
    ),
    ({"before": "[1, 2][scene.frame.position.argmax()]"}, "18, Mine.reward: an index of a Python list"),
    ({"before": "scene.frame.hieght"}, "18, Mine.reward: AttributeError: 'Frame' object has no"),
    ({"before": "undefined"}, "18, Mine.reward: NameError: name 'undefined' is not defined"),
    ({"before": "jnp.zeros(2) + jnp.zeros(3)"}, "18, Mine.reward: TypeError: add got incompatible shapes"),
    ({"before": "helper(1)"}, "7, Mine.reward: ZeroDivisionError: division by zero"),
    ({"before": "scene.actuator_velocities"}, "18, Mine.reward: actuator 'push' moves no joint"),
    ({"reward": "jnp.zeros(()) / 0"}, "17, Mine.reward: reward is nan at an episode's start"),
    ({"reward": "jnp.log(jnp.zeros(()))"}, "17, Mine.reward: reward is -inf at an episode's start"),
    ({"reward": "jnp.zeros(1)"}, "17, Mine.reward: reward gives a reward of shape (1,), not ()"),
    ({"state": "jnp.ones(3)"}, "17, Mine.reward: reward gives a state 3, not 2 as reset does"),
    ({"start": "key.hello"}, "12, Mine.reset: AttributeError"),
    ({"observe": "jnp.zeros(2)"}, "14, Mine.observe: observe must give a dict of named groups"),
    (
        {"observe": "{'proprioception': jnp.zeros(2)}"},
        "14, Mine.observe: observation group 'proprioception' is",
    ),
    ({"observe": "{'a': state if scene.frame.heading > 0 else 1}"}, "15, Mine.observe: `if`, `and`"),
]
BODY = """<mujoco><worldbody><body name='torso' pos='0 0 .2'><freejoint/>
<geom name='hull' size='.1' contype='1'/><site name='s'/></body></worldbody>
<actuator><motor name='push' site='s' gear='1 0 0 0 0 0'/></actuator></mujoco>"""


def write(folder, wrong):
    (folder / "body.xml").write_text(BODY)
    (folder / "task.py").write_text(TASK.format(**{**GOOD, **wrong}))
    file = folder / "mine.toml"
    file.write_text('body = "body.xml"\n[arena]\nkind = "area"\n[task]\nkind = "task.py:Mine"')
    return str(file)


@pytest.mark.parametrize(("wrong", "said"), WRONG, ids=[str(x) for _, x in WRONG])
def test_a_mistake_is_one_line_with_its_place(tmp_path, wrong, said):
    with pytest.raises(UserError) as refused:
        make_world(write(tmp_path, wrong), "mujoco")
    assert str(refused.value).startswith("task.py:" + said)
    assert "\n" not in str(refused.value)


def test_a_right_task_is_a_world(tmp_path):
    assert make_world(write(tmp_path, {}), "mujoco").observation_specs["beacon"].shape == (2,)


def test_the_rest_is_shown_when_asked_for(tmp_path, capsys):
    file = write(tmp_path, {"before": "helper(1)"})
    given = ["evaluate", f"random:{file}", "--episodes", "1"]
    assert run(given) == 2
    assert capsys.readouterr().err == "error: task.py:7, Mine.reward: ZeroDivisionError: division by zero\n"
    assert run([*given, "--traceback"]) == 2
    shown = capsys.readouterr().err
    assert "return x / 0" in shown
    assert shown.endswith("division by zero\n")
    assert not list(Path(tmp_path).glob("runs"))
