"""Worlds that vary: what an episode draws of its body and of how it senses and acts."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Annotated, Any

import flax.struct
import jax
import jax.numpy as jnp
import mujoco
from annotated_types import Ge, Le
from jaxtyping import Array, Float, Int, PRNGKeyArray, Shaped
from pydantic import AfterValidator

from mjx_hkl.config import to_table
from mjx_hkl.environments.bodies import Body
from mjx_hkl.environments.model_factors import ModelFactors
from mjx_hkl.environments.numbers import Amount, Rate, rising
from mjx_hkl.errors import UserError, unknown_name

DRAWN = "privileged_randomization"
"""The group of what an episode has drawn; `privileged` groups are the critic's alone."""


Factors = Annotated[tuple[Amount, Amount], AfterValidator(rising)]
"""The least and the greatest factor of a number of the model."""
Delay = Annotated[int, Ge(0), Le(100)]
Delays = Annotated[tuple[Delay, Delay], AfterValidator(rising)]
"""The shortest and the longest delay, control steps."""
_SAME = (1.0, 1.0)


@dataclasses.dataclass(frozen=True)
class RandomizationConfig:
    """The `[randomization]` table of an environment file; each episode draws anew, uniformly.

    Factors are of the body's own numbers; boxes stay as they are, but for friction and gravity.
    """

    mass: Factors = _SAME  # of the whole body: one for all its links
    link_mass: Factors = _SAME  # of each link, besides
    friction: Factors = _SAME  # sliding, of all contacts alike
    strength: Factors = _SAME  # of each actuator's force: of a motor, its gear
    damping: Factors = _SAME  # of each joint
    gravity: Factors = _SAME  # its strength
    push_speed: Rate = (
        0.0  # m/s, the greatest; a push changes the torso's velocity in any direction over ground
    )
    push_period: Amount = 2.0  # seconds from push to push; the first comes at random within them
    action_delay: Delays = (0, 0)  # control steps; until the first action arrives, actions are 0
    observation_delay: Delays = (0, 0)  # control steps, of all groups but a camera's
    noise: dict[str, Rate] = dataclasses.field(
        default_factory=dict
    )  # by group, standard deviation, each step
    bias: dict[str, Rate] = dataclasses.field(default_factory=dict)  # by group, the same of a whole episode
    observed: bool = False  # by the critic: what is drawn is the group privileged_randomization


@flax.struct.dataclass
class Variation:
    """What an episode has drawn beyond its model, and what is on its way.

    Attributes:
      key: of the noise and pushes of the steps to come.
      until_push: control steps until the next push.
      action_delay: control steps.
      observation_delay: control steps.
      bias: of groups by name.
      actions: the newest first.
      observations: the newest first, by group; as they were before noise.
    """

    key: PRNGKeyArray
    until_push: Int[Array, ""]
    action_delay: Int[Array, ""]
    observation_delay: Int[Array, ""]
    bias: dict[str, Float[Array, " n"]]
    actions: Float[Array, "delays nu"]
    observations: dict[str, Shaped[Array, "delays ..."]]


class Randomization:
    """Draws what a world's `[randomization]` asks for, and applies it to actions and observations."""

    def __init__(
        self, config: RandomizationConfig, model: mujoco.MjModel, body: Body, control_seconds: float
    ):
        """Raises UserError where a factor is of what is 0."""
        self._config, self._model, self._body = config, model, body
        self._require_something_to_vary()
        self._period = max(1, round(config.push_period / control_seconds))  # control steps

    @property
    def deceives(self) -> bool:
        """Whether a task's groups are late, biased or noisy; what a body feels of itself is no task's."""
        config = self._config
        return bool(config.observation_delay[1] or {*config.noise, *config.bias} - {"proprioception"})

    @property
    def tells_biases(self) -> bool:
        """Whether `DRAWN` says by how much single numbers of a task's groups are wrong."""
        return self._config.observed and bool({*self._config.bias} - {"proprioception"})

    def factors(self, key: PRNGKeyArray) -> ModelFactors | None:
        """Of an episode's model; None where it never differs."""
        model, own = self._model, self._body
        counts = {"mass": 1, "link_mass": own.num_links, "friction": 1, "gravity": 1}
        counts |= {"strength": model.nu, "damping": own.num_velocities}
        counts = {name: n for name, n in counts.items() if getattr(self._config, name) != _SAME}
        if not counts:
            return None
        drawn = {}
        for name, part in _in_parts(jax.random.uniform(key, (sum(counts.values()),)), counts).items():
            low, high = getattr(self._config, name)
            drawn[name] = low + (high - low) * part
        mass, damping = drawn.pop("mass", None), drawn.pop("damping", None)
        links = drawn.pop("link_mass", None)
        if mass is not None or links is not None:
            of_links = (1.0 if mass is None else mass) * (jnp.ones(own.num_links) if links is None else links)
            drawn["mass"] = jnp.ones(model.nbody).at[: own.num_links].set(of_links)
        if damping is not None:
            drawn["damping"] = jnp.ones(model.nv).at[: own.num_velocities].set(damping)
        return ModelFactors(**drawn)

    def start(
        self, key: PRNGKeyArray, observation: Mapping[str, Array], factors: ModelFactors | None
    ) -> tuple[Variation, dict[str, Array]]:
        """What an episode with this first observation draws, and the observation as it is sensed.

        Raises:
          UserError: noise or bias is of a group that there is not, or that is no vector of floats.
        """
        config = self._config
        self._require_groups(observation)
        whole_key, bias_key, key = jax.random.split(key, 3)
        bounds = jnp.array([config.action_delay, config.observation_delay, (0, self._period - 1)])
        # Integers from one draw: below 2^24 these are as good as uniform.
        unit = jax.random.uniform(whole_key, (3,))
        low, high = bounds.T
        action_delay, observation_delay, until_push = low + jnp.floor(unit * (high - low + 1)).astype(int)
        most_actions, most = config.action_delay[1], config.observation_delay[1]
        variation = Variation(
            key=key,
            until_push=until_push,
            action_delay=action_delay,
            observation_delay=observation_delay,
            bias=_normals(bias_key, config.bias, observation),
            actions=jnp.zeros((most_actions + 1 if most_actions else 0, self._model.nu)),
            observations={name: jnp.stack([x] * (most + 1)) for name, x in observation.items() if most},
        )
        return self.sense(variation, observation, factors)

    def act(
        self, variation: Variation, action: Float[Array, " nu"]
    ) -> tuple[Variation, Float[Array, " nu"], Float[Array, " 2"] | None]:
        """The action that arrives now, and the change of the torso's velocity by a push, m/s."""
        config = self._config
        now, key = jax.random.split(variation.key)
        variation = variation.replace(key=key)
        if config.action_delay[1]:
            actions = jnp.concatenate([action[None], variation.actions[:-1]])
            variation = variation.replace(actions=actions)
            action = actions[variation.action_delay]
        if not config.push_speed:
            return variation, action, None
        way, speed = jax.random.uniform(now, (2,)) * jnp.array([2 * jnp.pi, config.push_speed])
        is_due = variation.until_push == 0
        push = jnp.where(is_due, speed, 0.0) * jnp.stack([jnp.cos(way), jnp.sin(way)])
        until_push = jnp.where(is_due, self._period, variation.until_push) - 1
        return variation.replace(until_push=until_push), action, push

    def sense(
        self, variation: Variation, observation: Mapping[str, Array], factors: ModelFactors | None
    ) -> tuple[Variation, dict[str, Array]]:
        """An observation as it is sensed: late, biased, noisy."""
        config, sensed = self._config, dict(observation)
        if config.observation_delay[1]:
            kept = {
                name: jnp.concatenate([group[None], variation.observations[name][:-1]])
                for name, group in observation.items()
            }
            variation = variation.replace(observations=kept)
            sensed = {name: groups[variation.observation_delay] for name, groups in kept.items()}
        noise = _normals(jax.random.fold_in(variation.key, 2), config.noise, observation)
        for name, error in (*variation.bias.items(), *noise.items()):
            sensed[name] += error
        if config.observed:
            sensed[DRAWN] = self._drawn(variation, factors)
        return variation, sensed

    def sense_again(
        self, variation: Variation, observation: Mapping[str, Array], factors: ModelFactors | None
    ) -> tuple[Variation, dict[str, Array]]:
        """Likewise an observation in the place of the newest one; its errors are the same."""
        before = {name: jnp.concatenate([x[1:], x[-1:]]) for name, x in variation.observations.items()}
        return self.sense(variation.replace(observations=before), observation, factors)

    def _drawn(self, variation: Variation, factors: ModelFactors | None) -> Float[Array, " n"]:
        """All that is constant in an episode: factors, delays over the longest, biases."""
        parts = [x.ravel() for x in jax.tree.leaves((factors, variation.bias))]
        for name in ("action_delay", "observation_delay"):
            most = getattr(self._config, name)[1]
            if most:
                parts.append(getattr(variation, name)[None] / most)
        return jnp.concatenate([jnp.zeros(0), *parts])

    def _require_something_to_vary(self) -> None:
        damping = self._model.dof_damping[: self._body.num_velocities]
        for name, numbers in (("damping", damping), ("gravity", self._model.opt.gravity)):
            if getattr(self._config, name) != _SAME and not numbers.any():
                raise UserError(f"[randomization] {name}: the body has no {name} that a factor could change")

    def _require_groups(self, observation: Mapping[str, Array]) -> None:
        for table in ("noise", "bias"):
            for name in getattr(self._config, table):
                if name not in observation:
                    raise unknown_name(f"observation group of [randomization] {table}", name, observation)
                if not jnp.issubdtype(observation[name].dtype, jnp.floating):
                    raise UserError(f"[randomization] {table}: group {name!r} is not of floats")


def _normals(
    key: PRNGKeyArray, deviations: Mapping[str, float], observation: Mapping[str, Array]
) -> dict[str, Array]:
    """Errors of these standard deviations for each group that has one, in one draw: a launch on a GPU."""
    if not deviations:
        return {}
    counts = {name: observation[name].size for name in sorted(deviations)}
    parts = _in_parts(jax.random.normal(key, (sum(counts.values()),)), counts)
    return {name: deviations[name] * x.reshape(observation[name].shape) for name, x in parts.items()}


def _in_parts(numbers: Float[Array, " n"], counts: Mapping[str, int]) -> dict[str, Float[Array, " m"]]:
    """So many of the numbers for each name, in order."""
    ends = list(itertools.accumulate(counts.values()))
    return dict(zip(counts, jnp.split(numbers, ends[:-1]), strict=True))


def ranges(table: Mapping[str, Any] | None) -> str:
    """What varies in a world with this `[randomization]`, for people; empty where nothing does."""
    same = to_table(RandomizationConfig())
    changed = {name: value for name, value in (table or {}).items() if value != same[name]}
    return ", ".join(f"{name} {_shown(value)}" for name, value in changed.items())


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name} {x:g}" for name, x in value.items())
    return "–".join(f"{x:g}" for x in value) if isinstance(value, list | tuple) else f"{value}"
