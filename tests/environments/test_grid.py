"""The grid world against its description in E.1 and a breadth-first search."""

from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mjx_hkl.environments import GridWorld, make_world
from mjx_hkl.environments.grid import MOVES, GridState

BODIES = (1, 2, 4, 8)


@pytest.fixture(scope="module", params=BODIES)
def world(request):
    return make_world(f"grid-{request.param}-step")


def place(world, agent, goal, internal=(0, 0)):
    grid = GridState(*(jnp.array(x) for x in (agent, goal, internal)))
    start = world.reset(jax.random.key(0))
    return start.replace(pipeline_state=grid, obs=world.observe(grid))


def reference_step(agent, internal, action, size, step_size):
    """One action in plain Python, from the paper's sentences; whether it ran into a wall."""
    agent, internal, hit = list(agent), list(internal), False
    for axis, push in enumerate(MOVES[action]):
        internal[axis] += push
        if not -step_size + 1 <= internal[axis] <= step_size - 1:
            internal[axis] = 0
            if 0 <= agent[axis] + push < size:
                agent[axis] += push
            else:
                hit = True
    return tuple(agent), tuple(internal), hit


def test_every_transition_is_the_papers(world):
    config = world.config
    step = jax.jit(world.step)
    rng = np.random.default_rng(0)
    agent, internal, goal = (0, 0), (0, 0), (7, 7)
    state = place(world, agent, goal)
    for _ in range(300):
        action = int(rng.choice(4, p=[0.4, 0.1, 0.1, 0.4]))
        agent, internal, hit = reference_step(agent, internal, action, config.size, config.step_size)
        state = step(state, jnp.array(action))
        grid = state.pipeline_state
        assert (tuple(map(int, grid.agent)), tuple(map(int, grid.internal))) == (agent, internal)
        reached = agent == goal
        assert state.reward == pytest.approx(1.0 * reached - 0.1 - 0.2 * hit)
        assert (state.done, state.metrics["success"]) == (reached, reached)
        np.testing.assert_allclose(state.obs["coordinates"], 2 * np.array([*agent, *goal]) / 7 - 1, atol=1e-6)
        np.testing.assert_allclose(state.obs["proprioception"], np.array(internal) / config.step_size)
        if reached:
            agent, internal = (3, 2), (0, 0)
            state = place(world, agent, goal)


@pytest.mark.parametrize("step_size", [1, 2])
def test_the_shortest_path_is_n_actions_for_each_cell(step_size):
    """By breadth-first search over the states of a body of 1 and 2 steps."""
    start, goal = ((1, 2), (0, 0)), (4, 0)
    distance: dict[tuple, int] = {start: 0}
    queue: deque[tuple] = deque([start])
    while queue:
        state = queue.popleft()
        for action in range(4):
            agent, ball = state
            *after, _ = reference_step(agent, ball, action, 8, step_size)
            if tuple(after) not in distance:
                distance[tuple(after)] = distance[state] + 1
                queue.append(tuple(after))
    assert min(n for (agent, _), n in distance.items() if agent == goal) == step_size * (3 + 2)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31 - 1))
def test_agent_and_goal_start_apart_and_inside(seed):
    grid = _reset(jax.random.key(seed)).pipeline_state
    assert (grid.agent != grid.goal).any()
    assert ((grid.agent >= 0) & (grid.agent < 8) & (grid.goal >= 0) & (grid.goal < 8)).all()
    assert (grid.internal == 0).all()


_reset = jax.jit(make_world("grid-4-step").reset)


def test_every_pair_of_cells_is_as_likely():
    grid = jax.vmap(_reset)(jax.random.split(jax.random.key(1), 20_000)).pipeline_state
    for cells in (grid.agent, grid.goal):
        counts = np.bincount(np.asarray(cells @ jnp.array([8, 1])), minlength=64)
        assert abs(counts / counts.mean() - 1).max() < 0.3


def test_a_step_keeps_the_types_of_a_start(world):
    assert isinstance(world, GridWorld)
    start = world.reset(jax.random.key(0))
    after = jax.eval_shape(world.step, start, jnp.array(0))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), start) == jax.tree.map(
        lambda x: (x.shape, x.dtype), after
    )
