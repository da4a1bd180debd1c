"""The 2D grid world of E.1: an agent walks to a goal, with a body that needs n actions for one step."""

import dataclasses
from contextlib import AbstractContextManager, nullcontext
from typing import Annotated, Any, Literal, Protocol, cast, runtime_checkable

import flax.struct
import jax
import jax.numpy as jnp
from annotated_types import Ge
from brax.envs.base import Env, State
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from mjx_hkl.config import to_table
from mjx_hkl.environments.choices import Choice, choice_at, numbered
from mjx_hkl.environments.numbers import Amount, Rate, Repeats, Steps
from mjx_hkl.environments.scenery import Scenery
from mjx_hkl.environments.world import ActionKind, Draw, sizes_of
from mjx_hkl.specs import ArraySpec

MOVES = ((0, 1), (0, -1), (-1, 0), (1, 0))
"""Cells each action leads to, or pushes the internal coordinates to: up, down, left, right."""


@dataclasses.dataclass(frozen=True)
class GridConfig:
    """An environment file of `kind = "grid"`."""

    kind: Literal["grid"]  # what tells it from an environment with physics
    step_size: Repeats = 1  # n: actions in one direction that move the body by one cell
    size: Annotated[Repeats, Ge(2)] = 8  # cells along each side
    reward_at_goal: Amount = 1.0  # which ends the episode
    step_cost: Rate = 0.1  # of every action
    wall_cost: Rate = 0.2  # of running into a wall
    low_level_information: tuple[str, ...] = ("proprioception",)  # where a recipe does not say
    episode_length: Steps = 400  # actions until truncation


@flax.struct.dataclass
class GridState:
    """Cells of agent and goal, and the body's internal coordinates in [−n+1, n−1]²."""

    agent: Int[Array, " 2"]
    goal: Int[Array, " 2"]
    internal: Int[Array, " 2"]


@runtime_checkable
class CellWorld(Protocol):
    """A world of cells in a square, as figure 12 draws."""

    @property
    def cells(self) -> int:
        """Cells along each side."""
        ...

    def observe_at(self, cell: Int[Array, " 2"], goal: Int[Array, " 2"]) -> dict[str, Float[Array, " n"]]:
        """Observation groups of an agent at rest in a cell."""
        ...


class GridWorld(Env):
    """One grid; actions are the indices of `MOVES`.

    Observation groups: `coordinates` of agent and goal, the same for every body, and `proprioception`, the
    internal coordinates; both in [-1, 1].
    """

    action_kind: ActionKind = "categorical"
    engine = None
    notes = ()
    not_shared = ""
    can_succeed = True
    symmetry = None  # a turned grid has other actions
    relabelling = None
    curriculum = None
    drawing = None
    push = None
    control_seconds = 0.15  # what the eye can follow

    def __init__(self, config: GridConfig):
        self.config = config

    def reset(self, rng: PRNGKeyArray) -> State:
        """Agent and goal at two random cells, the body at rest."""
        cells = self.config.size**2
        agent, offset = jax.random.randint(rng, (2,), jnp.array([0, 1]), cells)
        goal = (agent + offset) % cells
        grid = GridState(self._point(agent), self._point(goal), jnp.zeros(2, jnp.int32))
        zero = jnp.zeros(())
        metrics = {"success": zero, "fault": zero}
        return State(grid, self.observe(grid), zero, zero, metrics)  # pyright: ignore - Brax means its own

    def step(self, state: State, action: Int[Array, ""]) -> State:
        """One action: it moves the internal coordinates, and the agent where they overflow.

        The internal coordinate of that direction is then 0 again, also before a wall.
        """
        grid = cast(GridState, state.pipeline_state)
        internal = grid.internal + jnp.asarray(MOVES)[action]
        overflow = self._overflow(internal)
        wanted = grid.agent + jnp.where(overflow, jnp.sign(internal), 0)
        agent = jnp.clip(wanted, 0, self.config.size - 1)
        at_wall = jnp.any(agent != wanted)
        grid = GridState(agent, grid.goal, jnp.where(overflow, 0, internal))
        success = jnp.all(agent == grid.goal).astype(jnp.float32)
        config = self.config
        reward = config.reward_at_goal * success - config.step_cost - config.wall_cost * at_wall
        return state.replace(
            pipeline_state=grid,
            obs=self.observe(grid),
            reward=reward,
            done=success,
            metrics=state.metrics | {"success": success},
        )

    def observe(self, grid: GridState) -> dict[str, Float[Array, " n"]]:
        """Observation groups of a state."""
        cells = jnp.concatenate([grid.agent, grid.goal]).astype(jnp.float32)
        return {
            "coordinates": 2.0 * cells / (self.config.size - 1) - 1.0,
            "proprioception": grid.internal.astype(jnp.float32) / self.config.step_size,
        }

    @property
    def cells(self) -> int:
        """Cells along each side."""
        return self.config.size

    def observe_at(self, cell: Int[Array, " 2"], goal: Int[Array, " 2"]) -> dict[str, Float[Array, " n"]]:
        """Observation groups of an agent at rest in a cell."""
        return self.observe(GridState(cell, goal, jnp.zeros(2, jnp.int32)))

    @property
    def choices(self) -> dict[str, Choice]:
        """See `World.choices`: the goal's cell."""
        names = numbered(self.config.size)
        return {
            "goal's column": self._choice(choice_at(names, "goal", 0)),
            "goal's row": self._choice(choice_at(names, "goal", 1)),
        }

    @property
    def description(self) -> dict[str, Any]:
        """What an export keeps of it."""
        return {"body": f"{self.config.step_size}-step", **to_table(self.config)}

    @property
    def episode_length(self) -> int:
        """Actions until truncation."""
        return self.config.episode_length

    @property
    def low_level_information(self) -> tuple[str, ...]:
        """Observation groups of the low level where a recipe does not say."""
        return self.config.low_level_information

    @property
    def observation_specs(self) -> dict[str, ArraySpec]:
        """Shape and type of each observation group by name."""
        return {"coordinates": ArraySpec((4,)), "proprioception": ArraySpec((2,))}

    @property
    def observation_size(self) -> dict[str, int]:
        """Numbers in each observation group by name."""
        return sizes_of(self.observation_specs)

    @property
    def action_size(self) -> int:
        """Number of actions to choose from."""
        return len(MOVES)

    @property
    def backend(self) -> str:
        """It has no physics."""
        return "grid"

    def visible(self, state: State) -> GridState:
        """See `World.visible`."""
        return cast(GridState, state.pipeline_state)

    def scenery(self) -> Scenery:
        """See `World.scenery`."""
        from mjx_hkl.environments.pictures import grid_scenery

        return grid_scenery(self.config)

    def renderer(self, width: int, height: int) -> AbstractContextManager[Draw]:
        """See `World.renderer`."""
        from mjx_hkl.environments.pictures import GridPicture

        return nullcontext(GridPicture(self.config, width, height))

    def _choice(self, of_grid: Choice) -> Choice:
        def put(state: State, value: Array) -> State:
            grid = of_grid.put(state.pipeline_state, value)
            return state.replace(pipeline_state=grid, obs=self.observe(grid))

        return dataclasses.replace(of_grid, of=lambda state: of_grid.of(state.pipeline_state), put=put)

    def _point(self, cell: Int[Array, ""]) -> Int[Array, " 2"]:
        return jnp.stack(jnp.divmod(cell, self.config.size))

    def _overflow(self, internal: Int[Array, " 2"]) -> Bool[Array, " 2"]:
        return jnp.abs(internal) >= self.config.step_size
