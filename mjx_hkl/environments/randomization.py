"""Worlds that vary: what an episode draws of its body and of how it senses and acts."""

import dataclasses
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
    gravity: Factors = _SAME
    push_speed: Rate = 0.0  # m/s, the greatest; a push changes the torso's velocity in any direction over ground
    push_period: Amount = 2.0  # seconds from push to push; the first comes at random within them
    action_delay: Delays = (0, 0)  # control steps; until the first action arrives, actions are 0
    observation_delay: Delays = (0, 0)  # control steps, of all groups but a camera's
    noise: dict[str, Rate] = dataclasses.field(default_factory=dict)  # by group, standard deviation, each step
    bias: dict[str, Rate] = dataclasses.field(default_factory=dict)  # by group, the same of a whole episode
    observed: bool = False  # by the critic: what is drawn is the group privileged_randomization


@flax.struct.dataclass
class Variation:
    """What an episode has drawn beyond its model, and what is on its way.

    Attributes:
      key: of the noise and pushes of the steps to come.
      step: control steps until a push, counted down.
      action_delay: control steps.
      observation_delay: control steps.
      bias: of groups by name.
      actions: the newest first.
      observations: the newest first, by group; as they were before noise.
    """

    key: PRNGKeyArray
    step: Int[Array, ""]
    action_delay: Int[Array, ""]
    observation_delay: Int[Array, ""]
    bias: dict[str, Float[Array, " n"]]
    actions: Float[Array, "delays nu"]
    observations: dict[str, Shaped[Array, "delays ..."]]


class Randomization:
    """Draws what a world's `[randomization]` asks for, and applies it to actions and observations."""

    def __init__(self, config: RandomizationConfig, model: mujoco.MjModel, body: Body, control_seconds: float):
        self._config, self._model, self._body = config, model, body
        self._period = max(1, round(config.push_period / control_seconds))  # control steps

    def factors(self, key: PRNGKeyArray) -> ModelFactors | None:
        """Of an episode's model; None where it never differs."""
        config, model, own = self._config, self._model, self._body
        keys = jax.random.split(key, 6)

        def draw(i: int, bounds: tuple[float, float], shape: int, fills: int = 0) -> Array | None:
            """`shape` numbers, and ones up to `fills`; None where all would be 1."""
            if bounds == _SAME:
                return None
            low, high = bounds
            drawn = jax.random.uniform(keys[i], (shape,), minval=low, maxval=high)
            return drawn if shape >= fills else jnp.ones(fills).at[:shape].set(drawn)

        whole, link = draw(0, config.mass, 1), draw(1, config.link_mass, own.num_links, model.nbody)
        if whole is not None:
            link = (jnp.ones(model.nbody) if link is None else link).at[: own.num_links].multiply(whole)
        factors = ModelFactors(
            mass=link,
            friction=draw(2, config.friction, 1),
            strength=draw(3, config.strength, model.nu),
            damping=draw(4, config.damping, own.num_velocities, model.nv),
            gravity=draw(5, config.gravity, 1),
        )
        return factors if jax.tree.leaves(factors) else None

    def start(
        self, key: PRNGKeyArray, observation: Mapping[str, Array], factors: ModelFactors | None
    ) -> tuple[Variation, dict[str, Array]]:
        """What an episode with this first observation draws, and the observation as it is sensed.

        Raises:
          UserError: noise or bias is of a group that there is not, or that is no vector of floats.
        """
        config = self._config
        self._require_groups(observation)
        action_key, observation_key, step_key, bias_key, key = jax.random.split(key, 5)
        biases = jax.random.split(bias_key, max(len(config.bias), 1))
        most_actions, most = config.action_delay[1], config.observation_delay[1]
        variation = Variation(
            key=key,
            step=jax.random.randint(step_key, (), 0, self._period),
            action_delay=_delay(action_key, config.action_delay),
            observation_delay=_delay(observation_key, config.observation_delay),
            bias={
                name: deviation * jax.random.normal(one, observation[name].shape)
                for one, (name, deviation) in zip(biases, sorted(config.bias.items()), strict=False)
            },
            actions=jnp.zeros((most_actions + 1 if most_actions else 0, self._model.nu)),
            observations={name: jnp.stack([x] * (most + 1)) for name, x in observation.items() if most},
        )
        return self.sense(variation, observation, factors)

    def act(
        self, variation: Variation, action: Float[Array, " nu"]
    ) -> tuple[Variation, Float[Array, " nu"], Float[Array, " 2"] | None]:
        """The action that arrives now, and the change of the torso's velocity by a push, m/s."""
        config = self._config
        if config.action_delay[1]:
            actions = jnp.concatenate([action[None], variation.actions[:-1]])
            variation = variation.replace(actions=actions)
            action = actions[variation.action_delay]
        if not config.push_speed:
            return variation, action, None
        push_key, key = jax.random.split(variation.key)
        way, speed = jax.random.uniform(push_key, (2,)) * jnp.array([2 * jnp.pi, config.push_speed])
        is_due = variation.step == 0
        push = jnp.where(is_due, speed, 0.0) * jnp.stack([jnp.cos(way), jnp.sin(way)])
        step = jnp.where(is_due, self._period, variation.step) - 1
        return variation.replace(key=key, step=step), action, push

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
        for name, bias in variation.bias.items():
            sensed[name] += bias
        if config.noise:
            key, *keys = jax.random.split(variation.key, len(config.noise) + 1)
            variation = variation.replace(key=key)
            for one, (name, deviation) in zip(keys, sorted(config.noise.items()), strict=True):
                sensed[name] += deviation * jax.random.normal(one, sensed[name].shape)
        if config.observed:
            sensed[DRAWN] = self._drawn(variation, factors)
        return variation, sensed

    def _drawn(self, variation: Variation, factors: ModelFactors | None) -> Float[Array, " n"]:
        """All that is constant in an episode: factors, delays over the longest, biases."""
        parts = [x.ravel() for x in jax.tree.leaves((factors, variation.bias))]
        for name in ("action_delay", "observation_delay"):
            most = getattr(self._config, name)[1]
            if most:
                parts.append(getattr(variation, name)[None] / most)
        return jnp.concatenate([jnp.zeros(0), *parts])

    def _require_groups(self, observation: Mapping[str, Array]) -> None:
        for table in ("noise", "bias"):
            for name in getattr(self._config, table):
                if name not in observation:
                    raise unknown_name(f"observation group of [randomization] {table}", name, observation)
                if not jnp.issubdtype(observation[name].dtype, jnp.floating):
                    raise UserError(f"[randomization] {table}: group {name!r} is not of floats")


def _delay(key: PRNGKeyArray, bounds: tuple[int, int]) -> Int[Array, ""]:
    low, high = bounds
    return jax.random.randint(key, (), low, high + 1)


def ranges(table: Mapping[str, Any] | None) -> str:
    """What varies in a world with this `[randomization]`, for people; empty where nothing does."""
    same = to_table(RandomizationConfig())
    changed = {name: value for name, value in (table or {}).items() if value != same[name]}
    return ", ".join(f"{name} {_shown(value)}" for name, value in changed.items())


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{name} {x:g}" for name, x in value.items())
    return "–".join(f"{x:g}" for x in value) if isinstance(value, list | tuple) else f"{value}"
