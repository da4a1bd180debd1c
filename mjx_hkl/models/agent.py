"""The agent: policy, default policy and critic, each of which sees its own groups only; how an agent acts."""

import dataclasses
import functools
from collections.abc import Collection, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from mjx_hkl.errors import UserError
from mjx_hkl.models.config import ModelConfig, PolicyConfig
from mjx_hkl.models.encoders import encode, observed
from mjx_hkl.models.modules import Module, Observation, Place, restarted
from mjx_hkl.models.steps import Carry, Latents, Noise, Step
from mjx_hkl.specs import ArraySpec

HIGH_LEVEL, LOW_LEVEL = "policy.high_level", "policy.low_level"
PRIOR, DEFAULT_LOW_LEVEL = "default_policy.high_level", "default_policy.low_level"


class Policy(nnx.Module):
    """π(a, z | x) = π^H(z | x) π^L(a | z, x) (§3)."""

    def __init__(self, high_level: Module, low_level: Any, config: PolicyConfig, sees_latent: bool):
        self.high_level = high_level
        self.low_level = low_level
        self.latent_size = config.latent_size
        self.latent_period = config.high_level.latent_period
        self.sees_latent = sees_latent

    @property
    def remembers(self) -> bool:
        """Whether latents come in order: π^H sees z_{t−1} or remembers, or a latent is kept for steps."""
        return self.sees_latent or self.latent_period > 1 or self.high_level.remembers

    def draw(
        self, carry: Carry, observation: Observation, noise: Array, held: Array | None = None
    ) -> tuple[Carry, Latents]:
        """z_t = f^H(x_t, ε_t), or z_{t−1} where the latent period keeps it (eq. 27).

        Numbers of z that are `held` are those, and not the policy's; see `Agent.step`.

        z_{t−1} is history: no gradient flows through it into π^H. Where the latent period keeps a latent, the
        gradient of every step that uses it flows into the step that drew it.
        """
        history = jax.lax.stop_gradient(carry.latent)
        memory, distribution = self.high_level.step(carry.memory[HIGH_LEVEL], observation, history)
        latent, age, drawn = distribution.draw(noise), carry.age, jnp.ones((*carry.age.shape, 1), bool)
        if self.latent_period > 1:  # XLA does not find by itself that every age is 0
            drawn = (age == 0)[..., None]
            latent, age = jnp.where(drawn, latent, carry.latent), (age + 1) % self.latent_period
        if held is not None:
            latent = jnp.where(jnp.isnan(held), latent, held)
        carry = Carry(latent, age, {**carry.memory, HIGH_LEVEL: memory})
        return carry, Latents(distribution, latent, history, drawn)


class DefaultPolicy(nnx.Module):
    """π0 = π0^H π0^L: a prior over latents, and a low level that is shared, its own, or none (§3.1, F.2)."""

    def __init__(self, high_level: Module, low_level: Any):
        self.high_level = high_level
        self.low_level = low_level


class Agent(nnx.Module):
    """All modules of one agent: a pytree of parameters that is called where it is needed."""

    def __init__(self, specs: Mapping[str, ArraySpec], action_size: int, config: ModelConfig, key: jax.Array):
        """A new agent.

        Args:
          specs: of the world's observation groups.
          action_size: numbers of an action, or choices of a discrete one.
          config: kinds and sizes; its information and actions are resolved.
          key: of the initial parameters.

        Raises:
          UserError: a module cannot be made for these observation groups.
        """
        policy, seen = config.policy, config.information
        shared = {name: fields for name, fields in config.encoders.items() if fields.shared}
        rngs = nnx.Rngs(jax.random.fold_in(key, 1))
        encoders = {name: fields.build(specs[name], rngs) for name, fields in shared.items() if name in specs}
        for name, encoder in encoders.items():
            encoder.sees = (name,)
        encoded = {name: ArraySpec((encoder.size,)) for name, encoder in encoders.items()}
        place = Place(
            observation={**specs, **encoded},
            groups=(),
            encoders={name: fields for name, fields in config.encoders.items() if name not in shared},
            action_size=action_size,
            action_kind=policy.actions,
            latent_size=policy.latent_size,
            sees_latent=config.default_policy.high_level.sees_latent and not policy.is_flat,
            rngs=nnx.Rngs(key),
        )

        def of(groups: tuple[str, ...]) -> Place:
            return dataclasses.replace(place, groups=groups)

        high_level = policy.high_level.build(of(seen.high_level))
        low_level = policy.low_level.build(of(seen.low_level))
        self.policy = Policy(high_level, low_level, policy, place.sees_latent)
        prior = config.default_policy.high_level.build(of(seen.default))
        self.default_policy = DefaultPolicy(
            prior, config.default_policy.low_level.build(of(seen.default), low_level)
        )
        judged = of(seen.critic)
        if config.acts_in_latents:  # z in the place of a
            judged = dataclasses.replace(
                judged, action_size=policy.latent_size, action_kind="latent", latent_size=0
            )
        self.critic = config.critic.build(judged, config.state_values)
        self.encoders = nnx.Dict(encoders)
        for module in (self.critic, *encoders.values()):
            if module.remembers:
                raise UserError(f"{type(module).__name__} remembers: a critic or an encoder cannot")
        self.action_size = action_size

    @property
    def pays_kl(self) -> bool:
        """Whether some level of the policy can differ from the default policy."""
        return self.policy.latent_size > 0 or self.default_policy.low_level.adds_kl

    @property
    def pays_kl_of_levels(self) -> bool:
        """Whether the KL is that of two levels, each a KL by itself; a bound by inference is one whole."""
        default = self.default_policy
        return self.policy.latent_size > 0 and default.low_level.adds_kl and not default.high_level.infers

    def start(self, batch: tuple[int, ...]) -> Carry:
        """The carry for the first step of an episode; that step must have `is_first` set."""
        memory = {name: module.start(batch) for name, module in self._acting().items()}
        latent = jnp.zeros((*batch, self.policy.latent_size))
        return Carry(latent, jnp.zeros(batch, jnp.int32), memory)

    def restart(self, carry: Carry, is_first: Bool[Array, "*batch"], start: Array) -> Carry:
        """The carry, fresh where an episode begins: there z_{t−1} is `start`, and a latent is due."""
        memory = {
            name: restarted(module, carry.memory[name], is_first) for name, module in self._acting().items()
        }
        latent = jnp.where(is_first[..., None], start, carry.latent)
        return Carry(latent, jnp.where(is_first, 0, carry.age), memory)

    def noise(self, key: PRNGKeyArray, batch: tuple[int, ...]) -> Noise:
        """Random numbers of one step of so many worlds."""
        start_key, latent_key, action_key = jax.random.split(key, 3)
        latent = (*batch, self.policy.latent_size)
        action = self.policy.low_level.head.distribution.noise(action_key, (*batch, self.action_size))
        default = jax.random.normal(jax.random.fold_in(key, 4), (*batch, self._default_noise))
        start, latent = jax.random.normal(start_key, latent), jax.random.normal(latent_key, latent)
        return Noise(start, latent, action, default)

    def no_noise(self, batch: tuple[int, ...]) -> Noise:
        """The noise that gives the most likely latent and action."""
        latent = jnp.zeros((*batch, self.policy.latent_size))
        default = jnp.zeros((*batch, self._default_noise))
        return Noise(latent, latent, jnp.zeros((*batch, self.action_size)), default)

    def step(
        self,
        carry: Carry,
        observation: Observation,
        is_first: Bool[Array, "*batch"],
        noise: Noise,
        held: Float[Array, "*batch latent"] | None = None,
    ) -> tuple[Carry, Step]:
        """One step of a batch of worlds.

        Args:
          carry: of `start`, or of the step before.
          observation: groups by name.
          is_first: whether the step is the first of its episode.
          noise: of `noise` or `no_noise`.
          held: z to act with, whatever the policy would draw; NaN for the numbers that it shall draw.
        """
        seen = encode(self.encoders, observation)
        carry = self.restart(carry, is_first, noise.start)
        carry, latents = self.policy.draw(carry, seen, noise.latent, held)
        default, low_level, memory = self.default_policy, self.policy.low_level, dict(carry.memory)
        memory[LOW_LEVEL], distribution = default.low_level.policy_action(
            low_level, memory[LOW_LEVEL], seen, latents.latent
        )
        action = distribution.draw(noise.action)
        told = (seen, action) if default.high_level.infers else ()
        memory[PRIOR], prior = default.high_level.step(memory[PRIOR], latents.latent_tm1, *told)
        if default.low_level.remembers:
            memory[DEFAULT_LOW_LEVEL] = default.low_level.remembered(
                memory[DEFAULT_LOW_LEVEL], low_level, seen, latents.latent, action, noise.default
            )
        step = Step(latents, prior, distribution, action)
        return carry.replace(memory=memory), step

    def log_marginal(
        self, memory: Any, observation: Observation, latents: Latents, noise: Array, action: Array
    ) -> Float[Array, "*batch"]:
        """An estimate of log π(a|x) = log ∫ π^H(z|x) π^L(a|z, x) dz: π^L's mean at z and further latents.

        A latent that is kept (eq. 27) belongs to x, and so does z_{t−1}.

        Where z is independent of a, the mean is unbiased for π(a|x). Where a was drawn at z, it is not, but
        one over it is unbiased for 1/π(a|x), which a ratio needs: of n + 1 latents alike a was drawn at any,
        so their mean is its density, E[f(a) / mean] = ∫ f(a) da (balance heuristic, Veach and Guibas 1995).

        Args:
          memory: the low level's, before the step.
          observation: `*batch`, encoded by shared encoders; one axis of `*batch` or more.
          latents: z and where it came from.
          noise: ε of n further latents, the axis of n before the last of `*batch`.
          action: a.
        """
        z, distribution = latents.latent[..., None, :, :], latents.distribution
        drawn = distribution.mean[..., None, :, :] + distribution.scale[..., None, :, :] * noise
        others = jnp.where(latents.drawn[..., None, :, :], drawn, z)

        def log_prob(latent: Array) -> Array:
            low_level, default = self.policy.low_level, self.default_policy.low_level
            return default.policy_action(low_level, memory, observation, latent)[1].log_prob(action)

        log_probs = jax.vmap(log_prob, in_axes=-3)(jnp.concatenate([z, others], -3))
        return jax.nn.logsumexp(log_probs, axis=0) - jnp.log(log_probs.shape[0])

    def observed(self, observation: Observation, frozen: Collection[str] = ()) -> "Agent":
        """The agent whose encoders have seen fresh observations, which those with statistics measure.

        Args:
          observation: groups by name, with any batch axes in front.
          frozen: modules and parts of modules that stay as they are, by name.
        """
        own = {name: observed(module, observation) for name, module in self._own().items()}
        shared = {
            f"encoders.{name}": encoder.observed(observation[name]) for name, encoder in self.encoders.items()
        }
        seen = with_modules(self, own | shared)
        return with_modules(seen, {name: module_at(self, name) for name in frozen})

    def modules(self) -> dict[str, Module]:
        """All modules by name, as recipes and exports name them."""
        shared = {f"encoders.{name}": encoder for name, encoder in self.encoders.items()}
        return {**self._own(), **shared}

    @property
    def _default_noise(self) -> int:
        return self.default_policy.low_level.noise_size

    def _own(self) -> dict[str, Any]:
        return {**self._acting(), "critic": self.critic}

    def _acting(self) -> dict[str, Any]:
        return {name: module_at(self, name) for name in (HIGH_LEVEL, LOW_LEVEL, PRIOR, DEFAULT_LOW_LEVEL)}


def module_at(agent: nnx.Module, name: str) -> Any:
    """The module of that name, like "policy.high_level"."""
    return functools.reduce(getattr, name.split("."), agent)


def with_modules(agent: Agent, modules: Mapping[str, Any]) -> Agent:
    """The agent with some of its modules exchanged, leaving the given agent as it is."""
    copy = jax.tree.map(lambda x: x, agent)
    for name, module in modules.items():
        *path, last = name.split(".")
        setattr(functools.reduce(getattr, path, copy), last, module)
    return copy
