"""What a world is: all that training, evaluation and pictures ask of one."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Literal, Protocol

import jax
import numpy as np
from brax.envs.base import State
from jaxtyping import Array, Float, PRNGKeyArray, Shaped, UInt8

from mjx_hkl.environments.choices import Choice
from mjx_hkl.environments.physics import Engine
from mjx_hkl.environments.scenery import Scenery
from mjx_hkl.specs import ArraySpec

ActionKind = Literal["gaussian", "categorical"]
Draw = Callable[[Any], UInt8[np.ndarray, "height width 3"]]
"""From what is `visible` of one world at one moment to a picture."""

Symmetry = Callable[[PRNGKeyArray, Mapping[str, Array]], dict[str, Array]]
"""A key and observation groups with any leading axes to the groups as another of the world's symmetries shows
them: one for all, drawn at random. Actions and rewards stay what they are."""

Curriculum = Callable[[Float[Array, ""]], "World"]
"""From the share of training that is done, in [0, 1], to the same world as its episodes then begin."""

Relabelling = Callable[
    [PRNGKeyArray, Mapping[str, Array]],
    tuple[dict[str, Array], Float[Array, "*batch"], Float[Array, "*batch"]],
]
"""A key and observation groups with any leading axes to the groups under an instruction drawn at random, one
for all; the reward for arriving at each observation; and 1.0 where that would have ended the episode."""

Push = Callable[[State, Float[Array, " 2"]], State]
"""A state and a change of the body's velocity over the ground, m/s, to the state after the push, in which the
next step begins. Only the observation after that step shows it."""

VISION, VISION_STATE = "vision", "vision_state"
"""Groups of a world with a camera: the image, and the numbers that it is drawn from, which no module sees."""
Drawing = Callable[[Mapping[str, Array]], UInt8[Array, "*batch height width channels"]]
"""Observation groups with any leading axes, `vision_state` among them, to their group `vision`."""


REWARD_TERMS = ("reward_", "reward/")
"""Beginnings of the names of metrics that tell what a reward is made of; ours, and MuJoCo Playground's."""


class World(Protocol):
    """One environment: pure functions of one state, made to be vmapped.

    A state is Brax's: `obs` is a dict of named groups, `done` is 1 where the episode terminates, and
    `metrics` has `success` and `fault` (1 where the simulator failed: the episode ends and nothing may be
    learned from the step), and what the reward is made of, by names that begin with one of `REWARD_TERMS`.
    The time limit is the vectorizer's business.
    """

    def reset(self, rng: PRNGKeyArray) -> State:
        """A fresh random start: everything is drawn from `rng`, nothing is cached."""
        ...

    def step(self, state: State, action: Shaped[Array, "..."]) -> State:
        """One control step. Shapes and types of the state stay those of a reset."""
        ...

    @property
    def observation_specs(self) -> Mapping[str, ArraySpec]:
        """Shape and type of each observation group by name."""
        ...

    @property
    def observation_size(self) -> Mapping[str, int]:
        """Numbers in each observation group by name; Brax's trainers read it."""
        ...

    @property
    def action_size(self) -> int:
        """Numbers in an action in [-1, 1] (gaussian), or actions to choose from (categorical)."""
        ...

    @property
    def action_kind(self) -> ActionKind:
        """Of its actions: vectors of numbers, or one of a few."""
        ...

    @property
    def episode_length(self) -> int:
        """Control steps until truncation."""
        ...

    @property
    def low_level_information(self) -> tuple[str, ...]:
        """Observation groups of the low level where a recipe does not say."""
        ...

    @property
    def description(self) -> dict[str, Any]:
        """Tables of plain values that an export keeps of it: another world of these is the same world."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """Lines for people, before they train in it: what of its files is not used."""
        ...

    @property
    def backend(self) -> str:
        """Name of its simulator."""
        ...

    @property
    def engine(self) -> Engine | None:
        """What advances its physics; None where its simulator is its own."""
        ...

    @property
    def not_shared(self) -> str:
        """Why several devices cannot share its copies, and what can; empty where they can."""
        ...

    @property
    def can_succeed(self) -> bool:
        """Whether it tells of success; else `success` is always 0, and the return says how well."""
        ...

    @property
    def symmetry(self) -> Symmetry | None:
        """What is as good an observation, whatever is done and earned; None where nothing is declared."""
        ...

    @property
    def relabelling(self) -> Relabelling | None:
        """What would have been earned under another instruction; None where nothing is declared."""
        ...

    @property
    def curriculum(self) -> Curriculum | None:
        """The world as training goes on, itself being that of the end; None where it stays as it is."""
        ...

    @property
    def drawing(self) -> Drawing | None:
        """Draws the camera's pictures again; None where the world has no camera."""
        ...

    @property
    def choices(self) -> Mapping[str, Choice]:
        """What its instruction says, by name, for people to choose; nothing where they cannot.

        A state in which something else is asked for is observed anew.
        """
        ...

    @property
    def push(self) -> Push | None:
        """Pushes the body; None where there is no body that could be pushed."""
        ...

    @property
    def control_seconds(self) -> float:
        """Seconds that a video shows a control step for."""
        ...

    def visible(self, state: State) -> Any:
        """What a picture of a state needs: arrays of one world, as `renderer` draws them."""
        ...

    def scenery(self) -> Scenery:
        """What there is to see of it, for those who draw it by themselves.

        Raises:
          UserError: it cannot be drawn.
        """
        ...

    def renderer(self, width: int, height: int) -> AbstractContextManager[Draw]:
        """Draws what is `visible` of its states.

        Raises:
          UserError: it cannot be drawn, or not on this machine.
        """
        ...


def specs_of(world: Any) -> dict[str, ArraySpec]:
    """The observation groups a reset of the world gives, worked out without running it."""
    observation = jax.eval_shape(world.reset, jax.random.key(0)).obs
    return {name: ArraySpec.of(group) for name, group in observation.items()}


def sizes_of(specs: Mapping[str, ArraySpec]) -> dict[str, int]:
    """Numbers in each group."""
    return {name: spec.size for name, spec in specs.items()}
