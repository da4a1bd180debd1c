"""One update: gradients of the loss, an optimizer for each part, and the target networks."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from mjx_hkl.algorithms.algorithm import Algorithm
from mjx_hkl.algorithms.hierarchy import Target
from mjx_hkl.algorithms.optimizers import NOTHING, Release, optimizers
from mjx_hkl.algorithms.window import Window
from mjx_hkl.errors import UserError
from mjx_hkl.models.agent import Agent, module_at, with_modules
from mjx_hkl.models.modules import Observation
from mjx_hkl.models.statistics import learned, map_learned, with_learned

_PARTS = ("policy", "default_policy", "critic", "encoders")  # of an agent, with an optimizer each
_MOST = 2**31 - 1  # that a count of updates can be


@flax.struct.dataclass
class Learner:
    """All that an update changes.

    Attributes:
      agent: θ, φ, ψ.
      own: the algorithm's own parameters, by name.
      target: φ', ψ', and θ' where there is a trust region.
      optimizer_state: by the name of the part.
      average: parts of the agent averaged over updates, by name.
    """

    agent: Agent
    own: dict[str, Any]
    target: Target
    optimizer_state: dict[str, optax.OptState]
    average: dict[str, Any]

    @property
    def averaged(self) -> Agent:
        """The agent to evaluate and export: parts that are averaged, and the others as they are."""
        return with_modules(self.agent, self.average)


def init(
    agent: Agent,
    algorithm: Algorithm,
    total_updates: int,
    key: PRNGKeyArray,
    release: Release = NOTHING,
) -> Learner:
    """A learner whose target equals the agent.

    Args:
      agent: to learn.
      algorithm: see `optimizers`.
      total_updates: of the whole run.
      key: of the algorithm's own parameters.
      release: see `optimizers`.
    """
    own = algorithm.parameters(agent, key)
    taken = [name for name in own if name in _PARTS]
    if taken:
        raise UserError(
            f"[algorithm] parameters() of {type(algorithm).__name__} names {taken[0]!r}, which is the agent's"
        )
    parts = _parts(learned(agent), own)
    by_part = optimizers(algorithm, parts, total_updates, release)
    state = {name: optimizer.init(parts[name]) for name, optimizer in by_part.items()}
    averaged = ("policy", "default_policy", "encoders") if algorithm.policy_average_updates else ()
    average = {name: _copy(getattr(agent, name)) for name in averaged}
    target = Target(agent, keeps_policy=algorithm.trust_region > 0)
    return Learner(agent, own, _copy(target), state, average)


def with_parameters(learner: Learner, modules: Mapping[str, Any]) -> Learner:
    """The fresh learner with these modules in the place of its own, and with their targets and averages."""
    agent = with_modules(learner.agent, modules)
    average = {name: _copy(getattr(agent, name)) for name in learner.average}
    return learner.replace(agent=agent, target=_copy(learner.target.renewed(agent)), average=average)


def observe(
    learner: Learner,
    observation: Observation,
    frozen: tuple[str, ...] = (),
    released: tuple[str, ...] = (),
    is_released: Bool[Array, ""] | bool = True,
) -> Learner:
    """The learner whose agent has seen fresh observations; targets and averages get the same statistics.

    Args:
      learner: donated.
      observation: groups of all worlds, with any batch axes in front.
      frozen: modules that stay as they are, like "policy.high_level".
      released: modules that stay as they are until they are released.
      is_released: whether they are.
    """
    agent = learner.agent.observed(observation, frozen)
    if released:
        agent = _with_held(agent, learner.agent, released, is_released)
    target = with_learned(learner.target.renewed(agent), learner.target)
    average = {name: with_learned(getattr(agent, name), old) for name, old in learner.average.items()}
    return learner.replace(agent=agent, target=target, average=average)


def update(
    learner: Learner,
    window: Window,
    key: PRNGKeyArray,
    count: Int[Array, ""],
    algorithm: Algorithm,
    total_updates: int,
    frozen: tuple[str, ...] = (),
    release: Release = NOTHING,
) -> tuple[Learner, dict[str, Float[Array, ""]]]:
    """One step of every optimizer on a time-major batch; one whose gradients are not finite changes nothing.

    Its metrics are then 0, but for `skipped_updates`, which is 1.

    Args:
      learner: donated.
      window: a time-major batch.
      key: consumed.
      count: updates made, this one included; every `target_update_period`-th moves the target.
      algorithm: its loss and its numbers.
      total_updates: of the whole run.
      frozen: modules that stay as they are, like "policy.high_level".
      release: modules that stay as they are at first.
    """
    held, scheduled = release.modules, algorithm.scheduled(count, total_updates)

    def loss(agent: Agent, own: dict[str, Any]) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        agent, given = with_learned(learner.agent, agent), own | scheduled
        return algorithm.loss(agent, learner.target, window, key, given)

    parameters = learned(learner.agent)
    gradients, metrics = jax.grad(loss, argnums=(0, 1), has_aux=True)(parameters, learner.own)
    with jax.named_scope("optimizer"):
        nothing = {name: jax.tree.map(jnp.zeros_like, module_at(gradients[0], name)) for name in frozen}
        of_agent = with_modules(gradients[0], nothing)
        if held:  # no gradient, which counts in the part's clipped norm; no moments, by the optimizer; and no
            # weight decay, by the old values below
            zeros = jax.tree.map(jnp.zeros_like, of_agent)
            of_agent = _with_held(of_agent, zeros, held, count > release.after)
        gradients = _parts(of_agent, gradients[1])
        norms = {name: optax.tree.norm(part) for name, part in gradients.items()}
        is_finite = jnp.isfinite(sum(norms.values()))
        parts, optimizer_state = _parts(parameters, learner.own), {}
        for name, optimizer in optimizers(algorithm, parts, total_updates, release).items():
            before, state = parts[name], learner.optimizer_state[name]
            change, next_state = optimizer.update(gradients[name], state, before)
            parts[name] = _where(is_finite, optax.apply_updates(before, change), before)
            optimizer_state[name] = _where(is_finite, next_state, state)
        agent = with_modules(parameters, {name: parts[name] for name in _PARTS if name in parts})
        agent = with_learned(learner.agent, agent)
        agent = with_modules(agent, {name: module_at(learner.agent, name) for name in frozen})
        if held:
            agent = _with_held(agent, learner.agent, held, count > release.after)
            metrics["released"] = jnp.float32(count > release.after)
        is_due = is_finite & (count % min(algorithm.target_update_period, _MOST) == 0)
        rate = jnp.where(is_due, algorithm.target_update_rate, 0.0)
        target = map_learned(
            lambda old, new: rate * new + (1.0 - rate) * old, learner.target, learner.target.renewed(agent)
        )
        # All updates weigh alike until there are so many; and what is frozen stays to the last bit.
        share = is_finite / jnp.clip(count, 1, max(1, min(algorithm.policy_average_updates, _MOST)))
        average = {
            name: map_learned(lambda old, new: old + share * (new - old), old, getattr(agent, name))
            for name, old in learner.average.items()
        }
        own = {name: parts[name] for name in learner.own}
        metrics |= {f"{name}_gradient_norm": norm for name, norm in norms.items()}
        metrics = {name: jnp.where(is_finite, x, 0.0) for name, x in metrics.items()}
        metrics["skipped_updates"] = 1.0 - is_finite
    return Learner(agent, own, target, optimizer_state, average), metrics


def _parts(agent: Agent, own: Mapping[str, Any]) -> dict[str, Any]:
    """What has an optimizer each: the parts of the agent, and the algorithm's own parameters."""
    of_agent = {name: getattr(agent, name) for name in _PARTS}
    if not jax.tree.leaves(agent.encoders):
        del of_agent["encoders"]
    return {**of_agent, **own}


def _with_held(agent: Agent, held: Agent, names: tuple[str, ...], is_released: Any) -> Agent:
    """The agent, its modules of these names those of `held` until they are released."""

    def chosen(new: Any, old: Any) -> Any:
        return jax.tree.map(lambda x, y: jnp.where(is_released, x, y), new, old)

    modules = {name: chosen(module_at(agent, name), module_at(held, name)) for name in names}
    return with_modules(agent, modules)


def _where(is_finite: Bool[Array, ""], new: Any, old: Any) -> Any:
    """The new numbers where they are finite, else the old; optimizers count skipped updates like others."""

    def chosen(new: Array, old: Array) -> Array:
        return jnp.where(is_finite, new, old) if jnp.issubdtype(new.dtype, jnp.floating) else new

    return jax.tree.map(chosen, new, old)


def _copy(tree: Any) -> Any:
    """Copies every array, because a donated state must not hold the same buffer twice."""
    return jax.tree.map(lambda x: x + 0, tree)
