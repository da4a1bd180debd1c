"""What a task declares to be as good an observation is what the world observes of things in another order."""

import dataclasses
from itertools import permutations, product

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from loading import physics_environment
from scipy import stats
from worlds import load, observe, reset, targets_of

from mjx_hkl.environments import PhysicsWorld
from mjx_hkl.environments.randomization import RandomizationConfig

ORDERS = {  # of targets, of boxes
    "ball-go-to-target": (6, 1),
    "ball-move-box-mid": (6, 1),
    "ball-move-box-hard": (2, 2),
    "ball-gather-boxes": (1, 2),
    "ball-move-box-or-go-to-target": (2, 1),
    "ball-move-box-and-go-to-target": (2, 1),
}
DRAWS = 1200


def test_a_critic_that_is_told_biases_would_see_those_of_another_order():
    config = physics_environment("ball-go-to-target")

    def declared(**drawn):
        drawn = RandomizationConfig(**drawn)
        return PhysicsWorld(dataclasses.replace(config, randomization=drawn), "mujoco").symmetry is not None

    assert declared(bias={"targets": 0.1})
    assert declared(bias={"proprioception": 0.1}, observed=True)
    assert not declared(bias={"targets": 0.1}, observed=True)


def symmetry_of(name):
    symmetry = load(name).symmetry
    assert symmetry is not None
    return symmetry


def in_every_order(name, physics, task):
    """Physics and task with targets and boxes in other places of their lists, the same things asked for."""
    world = load(name)
    joints = world.boxes._qpos[:, None] + np.arange(3)
    num_targets = len(targets_of(task).positions) if task != () else 0
    for order, boxes in product(
        permutations(range(num_targets)), permutations(range(world.boxes.count) if world.boxes.count else [])
    ):
        qpos = physics.qpos
        if boxes:
            qpos = qpos.at[joints].set(qpos[joints[np.array(boxes)]])
        moved = task
        if order:
            targets = targets_of(task)
            selected = jnp.asarray(order.index(int(targets.selected)))
            targets = targets.replace(positions=targets.positions[np.array(order)], selected=selected)
            moved = targets if task is targets_of(task) else task.replace(targets=targets)
        if hasattr(task, "box"):
            moved = moved.replace(box=jnp.asarray(boxes.index(int(task.box))))
        yield physics.replace(qpos=qpos), moved


@pytest.mark.parametrize("name", ORDERS)
def test_all_orders_are_observed_and_equally_often(name):
    state = reset(name, 3)
    physics, task = state.pipeline_state.physics, state.pipeline_state.task
    expected = [observe(name, *variant) for variant in in_every_order(name, physics, task)]
    assert len(expected) == np.prod(ORDERS[name])
    found = jax.vmap(symmetry_of(name), (0, None))(jax.random.split(jax.random.key(0), DRAWS), state.obs)

    def same(groups):
        each = [np.abs(found[group] - groups[group]).max(-1) for group in found]
        return np.max(each, axis=0) < 1e-5

    times = np.array([same(groups).sum() for groups in expected])
    assert times.sum() == DRAWS  # each draw is one of them
    assert stats.chisquare(times).pvalue > 1e-3


@pytest.mark.parametrize("name", ORDERS)
def test_every_order_earns_the_same(name):
    """The body and the box that is asked for at the target, other boxes beside it."""
    world, state = load(name), reset(name, 5)
    physics, task = state.pipeline_state.physics, state.pipeline_state.task
    place = targets_of(task).positions[targets_of(task).selected] if task != () else jnp.zeros(2)
    qpos = world.body.place(physics.qpos, place, jnp.zeros(()))
    count = world.boxes.count
    if count:
        beside = (jnp.arange(count) - getattr(task, "box", 0)) % count  # 0.4 m: a touch, and no success
        away = 0.4 * beside[:, None] * jnp.array([1.0, 0.0])
        qpos = world.boxes.place(qpos, place + away, jnp.zeros(count))
    rewards = [
        float(world.task.reward(task, world.scene(physics, physics.qpos[None])).reward)
        for physics, task in in_every_order(name, physics.replace(qpos=qpos), task)
    ]
    assert rewards[0] > 0
    assert rewards == [rewards[0]] * int(np.prod(ORDERS[name]))


@pytest.mark.parametrize("name", ["ball-go-to-target", "ball-move-box-hard"])
def test_one_draw_is_for_all_leading_axes(name):
    state, key = reset(name, 3), jax.random.key(1)
    many = jax.tree.map(lambda x: jnp.stack([x + i for i in range(6)]).reshape(2, 3, *x.shape), state.obs)
    symmetry = symmetry_of(name)
    found = symmetry(key, many)
    for i in range(2):
        for j in range(3):
            one = symmetry(key, jax.tree.map(lambda x, i=i, j=j: x[i, j], many))
            for group in many:
                np.testing.assert_array_equal(found[group][i, j], one[group])


def test_a_world_without_any_says_so():
    assert load("ant-gap").symmetry is None
