"""A body in an arena with a task, on a physics engine; also a `brax.envs.Env`."""

import copy
import dataclasses
from contextlib import AbstractContextManager
from typing import Any, cast

import flax.struct
import jax
import jax.numpy as jnp
from brax.envs.base import Env, State
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from mjx_hkl.config import to_table
from mjx_hkl.environments.arenas import view_of
from mjx_hkl.environments.boxes import Boxes
from mjx_hkl.environments.cameras import Camera, marks_count
from mjx_hkl.environments.checks import (
    few_keys,
    require_groups,
    require_outcomes,
    require_relabelling,
    require_start,
    require_starts,
    require_symmetry,
)
from mjx_hkl.environments.choices import Choice
from mjx_hkl.environments.composition import Composition, EnvironmentConfig, compose
from mjx_hkl.environments.engines import make_engine
from mjx_hkl.environments.mistakes import told_of
from mjx_hkl.environments.physics import PhysicsState, control_of, full_precision
from mjx_hkl.environments.randomization import Randomization, Variation
from mjx_hkl.environments.renderers import Setting
from mjx_hkl.environments.scene import Marks, Scene
from mjx_hkl.environments.scenery import Scenery
from mjx_hkl.environments.tasks.base import Outcome
from mjx_hkl.environments.world import (
    REWARD_TERMS,
    ActionKind,
    Curriculum,
    Draw,
    Drawing,
    Push,
    Relabelling,
    Symmetry,
    sizes_of,
    specs_of,
)
from mjx_hkl.errors import UserError
from mjx_hkl.specs import ArraySpec


@flax.struct.dataclass
class WorldState:
    """The `pipeline_state` of a Brax state.

    Attributes:
      physics: positions and velocities.
      task: the task's own.
      action: that the agent took in the control step before, in [-1, 1]; 0 at a start.
      variation: what the episode has drawn; None where nothing varies.
      progress: of training when the episode began, in [0, 1]; None where the task does not use it.
    """

    physics: PhysicsState
    task: Any
    action: Float[Array, " nu"]
    variation: Variation | None = None
    progress: Float[Array, ""] | None = None


class PhysicsWorld(Env):
    """Observations are a dict of named groups; actions are in [-1, 1], which spans each actuator's range.

    `metrics` has `success` and `fault` (a simulator state that is not finite or absurdly fast: the
    episode ends and the step must not be learned from). The time limit is the vectorizer's business.
    """

    action_kind: ActionKind = "gaussian"
    notes: tuple[str, ...]  # lines for people: what of a robot's file is not used

    def __init__(self, config: EnvironmentConfig, engine: str = "auto", renderer: str = "auto"):
        self.config = config
        parts = compose(config)
        self.notes = parts.notes
        self.stage, self.body, self.task = parts.stage, parts.body, config.task
        self.boxes = Boxes(parts.model, config.boxes)
        self._num_velocities, self._num_actions = parts.model.nv, parts.model.nu
        self._rest = jnp.asarray(parts.rest, jnp.float32)
        self._mocap_rest = jnp.asarray(parts.model.body_pos[parts.model.body_mocapid >= 0], jnp.float32)
        self._to_control = control_of(parts.model, parts.body.anatomy.servos)
        self._progress = 1.0 if getattr(self.task, "uses_progress", False) else None
        drawn = config.randomization
        self._randomization = drawn and Randomization(drawn, parts.model, parts.body, self.control_seconds)
        self._camera = self._make_camera(parts, renderer)
        at_first = self if self._progress is None else self._at(jnp.zeros(()))
        self._terms = tuple(_terms_of(require_outcomes(self.task, at_first._first)))
        self._specs = specs_of(self)
        self._require_sound(parts)
        self.engine = make_engine(engine, parts.model, config.physics.substeps)

    def reset(self, rng: PRNGKeyArray) -> State:
        """A fresh random start: everything is drawn from `rng`, nothing is cached."""
        with full_precision():
            return self._reset(rng)

    def step(self, state: State, action: Float[Array, " nu"]) -> State:
        """One control step."""
        with full_precision():
            return self._step(state, action)

    def _start(self, rng: PRNGKeyArray) -> WorldState:
        progress = None if self._progress is None else jnp.asarray(self._progress, jnp.float32)
        task_key, heading_key, boxes_key = jax.random.split(rng, 3)
        with told_of(self.task, "reset"):
            start = self.task.reset(task_key, dataclasses.replace(self.stage, _progress=progress))
            require_start(start, self.boxes.count, len(self._mocap_rest))
        heading = _any_heading(heading_key, ()) if start.heading is None else start.heading
        qpos = self.body.place(self._rest, start.position, heading)
        if start.boxes is not None:
            qpos = self.boxes.place(qpos, start.boxes, _any_heading(boxes_key, (len(start.boxes),)))
        velocity = jnp.zeros(self._num_velocities)
        mocap_pos = self._mocap_rest if start.mocap_pos is None else start.mocap_pos
        factors = self._randomization and self._randomization.factors(jax.random.fold_in(rng, 4))
        physics = PhysicsState(qpos, velocity, velocity, mocap_pos, factors)
        return WorldState(physics, start.state, jnp.zeros(self._num_actions), progress=progress)

    def _reset(self, rng: PRNGKeyArray) -> State:
        (world, scene), zero = self._first(rng), jnp.zeros(())
        observation = self._observe(world.physics, world.task, scene, self._rest)
        if self._randomization is not None:
            key, factors = jax.random.fold_in(rng, 5), world.physics.factors
            variation, observation = self._randomization.start(key, observation, factors)
            world = world.replace(variation=variation)
        if self._camera is not None:
            look = self._camera.look(jax.random.fold_in(rng, 3))
            observation |= self._camera.first(*self._seen(world), look)
        return State(
            pipeline_state=world,  # pyright: ignore - Brax means its own
            obs=observation,
            reward=zero,
            done=zero,
            metrics={"success": zero, "fault": zero, **dict.fromkeys(self._terms, zero)},
        )

    def _step(self, state: State, action: Float[Array, " nu"]) -> State:
        world = cast(WorldState, state.pipeline_state)
        physics, variation, action = world.physics, world.variation, jnp.clip(action, -1.0, 1.0)
        arrived = action
        if self._randomization is not None and variation is not None:
            variation, arrived, push = self._randomization.act(variation, action)
            if push is not None:
                physics = physics.replace(qvel=self.body.pushed(physics.qvel, push))
        with jax.named_scope("physics"):
            physics, qpos_during = self.engine.step(physics, self._to_control(arrived))
        scene = self.scene(physics, qpos_during, action, world.action, world.progress, arrived)
        with told_of(self.task, "reward"):
            outcome = self.task.reward(world.task, scene)
        task = world.task if outcome.state is None else outcome.state
        told = sum(outcome.terms.values(), outcome.reward + outcome.success)
        fault = self._is_fault(physics) | ~jnp.isfinite(told)
        done = (outcome.success > 0) | self._is_lost(scene) | fault
        if outcome.failure is not None:
            done |= outcome.failure > 0
        earned = {"success": outcome.success, **_terms_of(outcome)}
        observation = self._observe(physics, task, scene, physics.qpos)
        if self._randomization is not None and variation is not None:
            variation, observation = self._randomization.sense(variation, observation, physics.factors)
        if self._camera is not None:
            seen = self._seen(world.replace(physics=physics, task=task))
            observation |= self._camera.next(*seen, state.obs)  # pyright: ignore
        return state.replace(
            pipeline_state=WorldState(physics, task, action, variation, world.progress),
            # A fault's numbers must not reach a network: it would make their gradients NaN, masked or not.
            obs=jax.tree.map(lambda new, old: jnp.where(fault, old, new), observation, state.obs),
            reward=jnp.where(fault, 0.0, outcome.reward),
            done=done.astype(jnp.float32),
            metrics=state.metrics
            | {name: jnp.where(fault, 0.0, x) for name, x in earned.items()}
            | {"fault": fault.astype(jnp.float32)},
        )

    @property
    def description(self) -> dict[str, Any]:
        """What an export keeps of it."""
        return to_table(self.config)

    @property
    def episode_length(self) -> int:
        """Control steps until truncation."""
        return self.config.episode_length

    @property
    def low_level_information(self) -> tuple[str, ...]:
        """Observation groups of the low level where a recipe does not say."""
        return self.config.low_level_information

    @property
    def observation_specs(self) -> dict[str, ArraySpec]:
        """Shape and type of each observation group by name."""
        return self._specs

    @property
    def observation_size(self) -> dict[str, int]:
        """Numbers in each observation group by name."""
        return sizes_of(self._specs)

    @property
    def action_size(self) -> int:
        """Number of actuators."""
        return self.engine.model.nu

    @property
    def backend(self) -> str:
        """The physics behind the engine interface."""
        return self.engine.name

    @property
    def not_shared(self) -> str:
        """Why several devices cannot share its copies, and what can; empty where they can."""
        renderer = self._camera.renderer if self._camera else None
        if self.engine.not_shared:
            reason, option = f"engine {self.engine.name} {self.engine.not_shared}", "--engine mjx"
        elif renderer and renderer.not_shared:
            reason, option = f"renderer {renderer.name} {renderer.not_shared}", "--renderer rays"
        else:
            return ""
        return f"{reason} and cannot be shared by devices: use {option}"

    @property
    def can_succeed(self) -> bool:
        """Whether the task can be solved, which it can where it does not say."""
        return getattr(self.task, "can_succeed", True)

    @property
    def symmetry(self) -> Symmetry | None:
        """The task's; None where it declares none, or where the critic sees biases, in the old order."""
        told = self._randomization and self._randomization.tells_biases
        return None if told else getattr(self.task, "symmetry", None)

    @property
    def relabelling(self) -> Relabelling | None:
        """The task's; None where it declares none, or where what is observed does not tell it the truth.

        A picture would still show what was asked; late or noisy groups would judge another state.
        """
        deceives = self._camera or (self._randomization and self._randomization.deceives)
        return None if deceives else getattr(self.task, "relabel", None)

    @property
    def curriculum(self) -> Curriculum | None:
        """These worlds by training's progress; None where the task does not use it."""
        return None if self._progress is None else self._at

    @property
    def drawing(self) -> Drawing | None:
        """See `World.drawing`."""
        return self._camera.draw if self._camera else None

    @property
    def choices(self) -> dict[str, Choice]:
        """See `World.choices`: the task's; nothing where it declares none."""
        method = getattr(self.task, "choices", None)
        of_task: dict[str, Choice] = {} if method is None else method(self.stage)
        return {name: self._choice(choice) for name, choice in of_task.items()}

    @property
    def push(self) -> Push:
        """See `World.push`."""

        def pushed(state: State, change: Float[Array, " 2"]) -> State:
            world = cast(WorldState, state.pipeline_state)
            qvel = self.body.pushed(world.physics.qvel, change)
            return state.replace(pipeline_state=world.replace(physics=world.physics.replace(qvel=qvel)))

        return pushed

    @property
    def control_seconds(self) -> float:
        """Simulated seconds of a control step."""
        return self.config.physics.timestep * self.config.physics.substeps

    def visible(self, state: State) -> WorldState:
        """See `World.visible`."""
        return cast(WorldState, state.pipeline_state)

    def scenery(self) -> Scenery:
        """See `World.scenery`."""
        model = self.engine.model

        def place(data: Any, state: WorldState) -> None:
            data.qpos[:], data.mocap_pos[:] = state.physics.qpos, state.physics.mocap_pos

        torso = model.body(self.body.anatomy.torso).id
        return Scenery(model, place, torso, view_of(self.stage.arena), jax.jit(self.marks))

    def renderer(self, width: int, height: int) -> AbstractContextManager[Draw]:
        """See `World.renderer`."""
        from mjx_hkl.environments.pictures import physics_renderer

        return physics_renderer(self.scenery(), width, height)

    def marks(self, state: WorldState) -> Marks | None:
        """What pictures show of the task; None for a task that shows nothing."""
        method = getattr(self.task, "marks", None)
        if method is None:
            return None
        scene = self.scene(state.physics, state.physics.qpos[None], progress=state.progress)
        return method(state.task, scene)

    def scene(
        self,
        physics: PhysicsState,
        qpos_during: Float[Array, "substeps nq"],
        action: Float[Array, " nu"] | None = None,
        last_action: Float[Array, " nu"] | None = None,
        progress: Float[Array, ""] | None = None,
        arrived: Float[Array, " nu"] | None = None,
    ) -> Scene:
        """What a task is shown of a state reached through these positions, by this action after that one.

        `arrived` is the action of an earlier step that moved the body, where actions are late.
        """
        none = jnp.zeros(self._num_actions)
        action = none if action is None else action
        return Scene(
            frame=self.body.frame(physics),
            boxes=self.boxes.poses(physics.qpos),
            boxes_during=self.boxes.poses(qpos_during),
            action=action,
            last_action=none if last_action is None else last_action,
            physics=physics,
            control_seconds=self.control_seconds,
            _arrived=action if arrived is None else arrived,
            _progress=progress,
            _body=self.body,
            _arena=self.stage.arena,
        )

    def _observe(
        self, physics: PhysicsState, task: Any, scene: Scene, posture: Float[Array, " nq"]
    ) -> dict[str, Shaped[Array, "..."]]:
        proprioception = self.body.proprioception(physics, scene.frame, posture, self.stage.arena.height)
        senses = {"proprioception": proprioception}
        with told_of(self.task, "observe"):
            asked = self.task.observe(task, scene)
            require_groups(senses, asked)
            if self._camera is not None and {"vision", "vision_state"} & asked.keys():
                raise UserError("groups 'vision' and 'vision_state' are the camera's; give others names")
        return {**senses, **asked}

    def _choice(self, of_task: Choice) -> Choice:
        """A choice of the task's as one of the world's."""

        def put(state: State, value: Array) -> State:
            world = cast(WorldState, state.pipeline_state)
            with full_precision():
                return self._observed_anew(state, world.replace(task=of_task.put(world.task, value)))

        return dataclasses.replace(of_task, of=lambda state: of_task.of(state.pipeline_state.task), put=put)

    def _observed_anew(self, state: State, world: WorldState) -> State:
        """The state with another task state. Of the last two actions the later one stands for both."""
        physics, variation, seen = world.physics, world.variation, cast(dict, state.obs)
        scene = self.scene(physics, physics.qpos[None], world.action, world.action, world.progress)
        observation = self._observe(physics, world.task, scene, physics.qpos)
        if self._randomization is not None and variation is not None:
            variation, observation = self._randomization.sense_again(variation, observation, physics.factors)
        if self._camera is not None:
            observation |= self._camera.again(*self._seen(world), seen)
        return state.replace(pipeline_state=world.replace(variation=variation), obs=observation)

    def _at(self, progress: Float[Array, ""]) -> "PhysicsWorld":
        """The same, but for the progress that episodes begin at."""
        world = copy.copy(self)
        world._progress = progress
        return world

    def _make_camera(self, parts: Composition, renderer: str) -> Camera | None:
        config = self.config.camera
        if config is None:
            return None
        marks = jax.eval_shape(lambda key: self.marks(self._start(key)), jax.random.key(0))
        count = marks_count(marks)
        return Camera(renderer, Setting(config, parts.spec, parts.model, self.body, self.boxes, count))

    def _seen(self, world: WorldState) -> tuple[Array, Array, Marks | None]:
        return world.physics.qpos, world.physics.mocap_pos, self.marks(world)

    def _first(self, key: PRNGKeyArray) -> tuple[WorldState, Scene]:
        """A start, and what a task is shown of it."""
        world = self._start(key)
        return world, self.scene(world.physics, world.physics.qpos[None], progress=world.progress)

    def _require_sound(self, parts: Composition) -> None:
        """Raises UserError where starts lie in the ground or outside of the arena."""

        def begin(key: PRNGKeyArray) -> tuple[PhysicsState, Array]:
            world, scene = self._first(key)
            return world.physics, self._is_lost(scene)

        if self.symmetry is not None:
            require_symmetry(self.symmetry, self._specs)
        if self.relabelling is not None:
            require_relabelling(self.relabelling, self._specs)
        name, qpos, mocap_pos = self.config.body, self._rest[None], self._mocap_rest[None]
        # On level ground the model's own place is like any other, and quickly looked at.
        if not parts.is_flat:
            with full_precision():
                physics, lost = jax.jit(jax.vmap(begin))(few_keys())
            if lost.any():
                raise UserError(f"body {name!r} starts outside of the arena, which ends its episodes at once")
            qpos, mocap_pos = physics.qpos, physics.mocap_pos
        limit = self.config.physics.max_velocity
        require_starts(name, parts.model, qpos, mocap_pos, parts.ground, limit)

    def _is_lost(self, scene: Scene) -> Array:
        """On its side, low, or out of the arena, the body or a box that could tip or slide there."""
        arena = self.stage.arena
        lost = arena.is_out(scene.frame.position) | jnp.any(jax.vmap(arena.is_out)(scene.boxes.position))
        if self.config.upright:
            lost |= scene.frame.rotation[2, 2] < self.config.upright
        if self.config.min_height:
            lost |= scene.frame.position[2] < self.config.min_height
        return lost

    def _is_fault(self, physics: PhysicsState) -> Array:
        # NaN compares false, so it is not below the limit either.
        sane = jnp.all(jnp.abs(physics.qvel) < self.config.physics.max_velocity)
        return ~(sane & jnp.all(jnp.isfinite(physics.qpos)) & jnp.all(jnp.isfinite(physics.qacc)))


def _terms_of(outcome: Outcome) -> dict[str, Array]:
    """A reward's terms as metrics."""
    return {REWARD_TERMS[0] + name: term for name, term in outcome.terms.items()}


def _any_heading(key: PRNGKeyArray, shape: tuple[int, ...]) -> Array:
    return jax.random.uniform(key, shape, minval=-jnp.pi, maxval=jnp.pi)
