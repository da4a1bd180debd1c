"""Several environments for one agent: worlds that show the same groups, each stepped by its own program."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import flax.struct
import jax
import jax.numpy as jnp
from brax.envs.base import Env, State, Wrapper
from jaxtyping import Array, Float, PRNGKeyArray, Shaped

from mjx_hkl.environments.choices import Choice
from mjx_hkl.environments.vectorized import Timestep, VectorEnvironment, VectorState
from mjx_hkl.environments.world import ActionKind, World, sizes_of
from mjx_hkl.errors import UserError
from mjx_hkl.specs import ArraySpec

TASK = "task"
"""The group that tells an agent of several environments which of them it is in: one-hot, in their order."""

TASKS = "environments"
"""In the description of several environments: their own descriptions, by name."""


def task_name(given: str) -> str:
    """What an environment among several is called: its name, or that of its file."""
    return Path(given).stem if given.endswith(".toml") else given


class TaskWorld(Wrapper):
    """One of several worlds, as an agent of all of them sees it.

    Where another world's group of a name is larger, zeros follow the numbers of this one's. A group that only
    others have is zeros.
    """

    symmetry = None
    relabelling = None

    def __init__(self, world: World, specs: Mapping[str, ArraySpec], index: int, count: int):
        """The world of that index among `count`; `specs` are those of the groups of all."""
        super().__init__(cast(Env, world))
        self._own, self._specs = dict(world.observation_specs), dict(specs)
        self._task = jax.nn.one_hot(index, count)

    @property
    def observation_specs(self) -> dict[str, ArraySpec]:
        """Shape and type of each observation group by name."""
        return self._specs

    @property
    def observation_size(self) -> dict[str, int]:
        """Numbers in each observation group by name."""
        return sizes_of(self._specs)

    def reset(self, rng: PRNGKeyArray) -> State:
        """See `World.reset`."""
        return self._shown(self.env.reset(rng))

    def step(self, state: State, action: Shaped[Array, "..."]) -> State:
        """See `World.step`."""
        return self._shown(self.env.step(self._unshown(state), action))

    @property
    def choices(self) -> dict[str, Choice]:
        """See `World.choices`."""

        def shown(choice: Choice) -> Choice:
            put = choice.put
            return dataclasses.replace(
                choice, put=lambda state, value: self._shown(put(self._unshown(state), value))
            )

        return {name: shown(choice) for name, choice in cast(World, self.env).choices.items()}

    def _unshown(self, state: State) -> State:
        shown = cast(dict, state.obs)
        own = {name: shown[name][tuple(map(slice, spec.shape))] for name, spec in self._own.items()}
        return state.replace(obs=own)

    def _shown(self, state: State) -> State:
        own = {TASK: self._task, **cast(dict, state.obs)}
        return state.replace(obs={name: _padded(own.get(name), spec) for name, spec in self._specs.items()})


class SeveralWorlds:
    """What training and exports ask of several worlds; see `World`. `SeveralEnvironments` steps them.

    Attributes:
      tasks: each world as the agent sees it, by name.
    """

    symmetry = None
    relabelling = None
    drawing = None

    def __init__(self, worlds: Mapping[str, World]):
        """Worlds by name, in the order of the group `task`.

        Raises:
          UserError: their actions or groups differ in kind, or one has what is for a single world.
        """
        _require_alike(worlds)
        self._worlds, self._specs = tuple(worlds.values()), _specs_of_all(worlds)
        self.tasks = {
            name: cast(World, TaskWorld(world, self._specs, index, len(worlds)))
            for index, (name, world) in enumerate(worlds.items())
        }

    @property
    def observation_specs(self) -> dict[str, ArraySpec]:
        """Shape and type of each group that any of them has, and of `task`."""
        return self._specs

    @property
    def action_size(self) -> int:
        """See `World.action_size`."""
        return self._worlds[0].action_size

    @property
    def action_kind(self) -> ActionKind:
        """See `World.action_kind`."""
        return self._worlds[0].action_kind

    @property
    def episode_length(self) -> int:
        """Control steps until truncation where that comes first."""
        return min(world.episode_length for world in self._worlds)

    @property
    def low_level_information(self) -> tuple[str, ...]:
        """The groups that are the low level's in every world, and of one size: it must not see the task."""
        first = self._worlds[0]
        return tuple(
            group
            for group in first.low_level_information
            if all(
                group in world.low_level_information
                and world.observation_specs[group] == first.observation_specs[group]
                for world in self._worlds
            )
        )

    @property
    def low_levels(self) -> str:
        """For people: what each world's own low level sees, with sizes."""

        def seen(world: World) -> str:
            groups = [f"{group} {world.observation_specs[group]}" for group in world.low_level_information]
            return ", ".join(groups) or "nothing"

        pairs = zip(self.tasks, self._worlds, strict=True)
        return "; ".join(f"{name}: {seen(world)}" for name, world in pairs)

    @property
    def notes(self) -> tuple[str, ...]:
        """See `World.notes`: of each, with its name."""
        pairs = zip(self.tasks, self._worlds, strict=True)
        return tuple(f"{name}: {note}" for name, world in pairs for note in world.notes)

    @property
    def description(self) -> dict[str, Any]:
        """Tables of plain values that an export keeps of them."""
        pairs = zip(self.tasks, self._worlds, strict=True)
        return {TASKS: {name: world.description for name, world in pairs}}

    @property
    def backend(self) -> str:
        """Names of their simulators."""
        return ", ".join(dict.fromkeys(world.backend for world in self._worlds))

    @property
    def not_shared(self) -> str:
        """See `World.not_shared`."""
        return next((world.not_shared for world in self._worlds if world.not_shared), "")

    @property
    def can_succeed(self) -> bool:
        """Whether some of them tell of success."""
        return any(world.can_succeed for world in self._worlds)

    @property
    def curriculum(self) -> Callable[[Float[Array, ""]], "SeveralWorlds"] | None:
        """See `World.curriculum`; None where all stay as they are."""
        if all(world.curriculum is None for world in self._worlds):
            return None

        def at(progress: Float[Array, ""]) -> SeveralWorlds:
            pairs = zip(self.tasks, self._worlds, strict=True)
            return SeveralWorlds(
                {name: world.curriculum(progress) if world.curriculum else world for name, world in pairs}
            )

        return at


AnyWorld = World | SeveralWorlds


class Worlds(Protocol):
    """Many worlds stepped together, of one environment or of several; see `VectorEnvironment`."""

    @property
    def env(self) -> AnyWorld:
        """What there are copies of."""
        ...

    @property
    def num_envs(self) -> int:
        """How many there are."""
        ...

    @property
    def tasks(self) -> dict[str, VectorEnvironment]:
        """By name those of each environment; of a single one all of them, unnamed."""
        ...

    def by_task(self, x: Shaped[Array, "envs ..."]) -> dict[str, Shaped[Array, "each ..."]]:
        """The part of an array of all worlds that is each environment's; nothing where there is only one."""
        ...

    def reset(self, key: PRNGKeyArray) -> Any:
        """Every world at a fresh start: a state with the `observation` groups and `episode_terms` of all."""
        ...

    def with_ages(self, state: Any, key: PRNGKeyArray) -> Any:
        """The state with each episode at a random age."""
        ...

    def step(self, state: Any, action: Shaped[Array, "envs ..."], key: PRNGKeyArray) -> tuple[Any, Timestep]:
        """One control step of every world; those whose episode ended start a new one from `key`."""
        ...


@flax.struct.dataclass
class SeveralState:
    """The carry of `SeveralEnvironments`.

    Attributes:
      tasks: that of each environment's worlds, in their order.
    """

    tasks: tuple[VectorState, ...]

    @property
    def observation(self) -> dict[str, Shaped[Array, "envs ..."]]:
        """Observation groups to act on."""
        return _joined([state.observation for state in self.tasks])

    @property
    def episode_terms(self) -> dict[str, Shaped[Array, " envs"]]:
        """The sums of the reward's terms since each episode's start; 0 of terms that only others have."""
        return _joined(_with_all_terms([state.episode_terms for state in self.tasks]))


@dataclasses.dataclass(frozen=True)
class SeveralEnvironments:
    """`num_each` copies of each of several worlds, stepped together.

    Arrays of all of them have the first of each environment, then the second of each, and so on. Devices that
    share such an array evenly hold whole copies, as many of each environment.
    """

    env: SeveralWorlds
    num_each: int

    @property
    def num_envs(self) -> int:
        """Worlds of all environments together."""
        return self.num_each * len(self.env.tasks)

    @property
    def tasks(self) -> dict[str, VectorEnvironment]:
        """See `Worlds.tasks`."""
        return {
            name: VectorEnvironment(world, self.num_each, world.episode_length)
            for name, world in self.env.tasks.items()
        }

    def by_task(self, x: Shaped[Array, "envs ..."]) -> dict[str, Shaped[Array, "each ..."]]:
        """See `Worlds.by_task`."""
        rows = x.reshape(self.num_each, len(self.env.tasks), *x.shape[1:])
        return {name: rows[:, index] for index, name in enumerate(self.env.tasks)}

    def reset(self, key: PRNGKeyArray) -> SeveralState:
        """See `Worlds.reset`."""
        return SeveralState(tuple(part.reset(key) for part, key in self._with_keys(key)))

    def with_ages(self, state: SeveralState, key: PRNGKeyArray) -> SeveralState:
        """See `Worlds.with_ages`."""
        pairs = zip(state.tasks, self._with_keys(key), strict=True)
        return SeveralState(tuple(part.with_ages(own, key) for own, (part, key) in pairs))

    def step(
        self, state: SeveralState, action: Shaped[Array, "envs ..."], key: PRNGKeyArray
    ) -> tuple[SeveralState, Timestep]:
        """See `Worlds.step`."""
        actions = self.by_task(action).values()
        each = [
            part.step(own, action, key)
            for own, action, (part, key) in zip(state.tasks, actions, self._with_keys(key), strict=True)
        ]
        timesteps = [timestep for _, timestep in each]
        terms = _with_all_terms([timestep.episode_terms for timestep in timesteps])
        timesteps = [x.replace(episode_terms=own) for x, own in zip(timesteps, terms, strict=True)]
        return SeveralState(tuple(after for after, _ in each)), _joined(timesteps)

    def _with_keys(self, key: PRNGKeyArray) -> list[tuple[VectorEnvironment, PRNGKeyArray]]:
        return list(zip(self.tasks.values(), jax.random.split(key, len(self.env.tasks)), strict=True))


def many(world: AnyWorld, num_envs: int) -> Worlds:
    """`num_envs` copies of a world; of several worlds as many of each, in all no fewer."""
    if isinstance(world, SeveralWorlds):
        return SeveralEnvironments(world, -(-num_envs // len(world.tasks)))
    return VectorEnvironment(world, num_envs, world.episode_length)


def _joined(parts: Sequence[Any]) -> Any:
    """Pytrees of arrays of each environment's worlds as one of all of them, in turn."""
    return jax.tree.map(lambda *xs: jnp.stack(xs, axis=1).reshape(-1, *xs[0].shape[1:]), *parts)


def _with_all_terms(parts: Sequence[Mapping[str, Array]]) -> list[dict[str, Array]]:
    """The terms of each environment, and zeros for those of the others."""
    known = {name: term for terms in parts for name, term in terms.items()}
    return [{name: terms.get(name, jnp.zeros_like(x)) for name, x in known.items()} for terms in parts]


def _padded(group: Array | None, spec: ArraySpec) -> Array:
    """The group with zeros after its numbers, in the shape of the spec."""
    if group is None:
        return jnp.zeros(spec.shape, spec.dtype)
    return jnp.pad(group, [(0, size - own) for size, own in zip(spec.shape, group.shape, strict=True)])


def _specs_of_all(worlds: Mapping[str, World]) -> dict[str, ArraySpec]:
    """Specs that hold each group of each world, and of `task`.

    Raises:
      UserError: groups of one name differ in more than their size.
    """
    found: dict[str, ArraySpec] = {}
    for name, world in worlds.items():
        for group, spec in world.observation_specs.items():
            known = found.setdefault(group, spec)
            if known.dtype != spec.dtype or len(known.shape) != len(spec.shape):
                raise UserError(
                    f"observation group {group!r} is {spec} in {name} and {known} in one before it: give it"
                    " another name in one of them"
                )
            found[group] = ArraySpec(tuple(map(max, known.shape, spec.shape)), spec.dtype)
    return {**found, TASK: ArraySpec((len(worlds),))}


def _require_alike(worlds: Mapping[str, World]) -> None:
    """Raises UserError where one agent cannot act in all worlds, or one has what is for a single world."""
    (first_name, first), *_ = worlds.items()
    for name, world in worlds.items():
        if (world.action_kind, world.action_size) != (first.action_kind, first.action_size):
            raise UserError(
                f"one agent acts alike in all its environments, but {first_name} takes {_actions(first)} and"
                f" {name} {_actions(world)}"
            )
        if world.drawing is not None:
            raise UserError(f"{name} has a camera, which no environment among several may have")
        if TASK in world.observation_specs:
            raise UserError(
                f"{name} has an observation group {TASK!r}, which tells several environments apart: give it"
                " another name"
            )


def _actions(world: World) -> str:
    return f"{world.action_size} " + ("numbers" if world.action_kind == "gaussian" else "choices")
