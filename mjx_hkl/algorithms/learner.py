"""One update: gradients of the loss, an optimizer for each part, and the target networks."""

import functools
import inspect
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from mjx_hkl.algorithms.algorithm import Algorithm
from mjx_hkl.algorithms.hierarchy import Target
from mjx_hkl.algorithms.window import Window
from mjx_hkl.errors import UserError, unknown_name
from mjx_hkl.models.agent import Agent, module_at, with_modules
from mjx_hkl.models.modules import Observation
from mjx_hkl.models.statistics import learned, map_learned, with_learned

_PARTS = ("policy", "default_policy", "critic", "encoders")  # of an agent, with an optimizer each


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


def optimizers(
    algorithm: Algorithm, parts: Mapping[str, Any], total_updates: int
) -> dict[str, optax.GradientTransformation]:
    """An optimizer for each part.

    Args:
      algorithm: says the learning rates and their schedule.
      parts: of the agent and of the algorithm, by name.
      total_updates: of the whole run.

    Raises:
      UserError: optax has no optimizer of that name, or a part has no learning rate.
    """
    known = _optimizers_by_name()
    if algorithm.optimizer not in known:
        raise UserError(f"algorithm.optimizer: {unknown_name('optimizer', algorithm.optimizer, known)}")
    optimizer, rates = known[algorithm.optimizer], algorithm.learning_rates()
    updates = round(algorithm.learning_rate_decay * total_updates)

    def of(part: str) -> optax.GradientTransformation:
        if part not in rates:
            raise UserError(
                f"[algorithm] learning_rates() of {type(algorithm).__name__} has no entry {part!r}"
            )
        rate = rates[part]
        schedule = optax.linear_schedule(rate, 0.1 * rate, updates) if updates else rate
        return optax.chain(optax.clip_by_global_norm(algorithm.max_gradient_norm), optimizer(schedule))

    return {part: of(part) for part in parts}


def init(agent: Agent, algorithm: Algorithm, total_updates: int, key: PRNGKeyArray) -> Learner:
    """A learner whose target equals the agent; `key` is for the algorithm's own parameters."""
    own = algorithm.parameters(agent, key)
    taken = [name for name in own if name in _PARTS]
    if taken:
        raise UserError(
            f"[algorithm] parameters() of {type(algorithm).__name__} names {taken[0]!r}, which is the agent's"
        )
    parts = _parts(learned(agent), own)
    state = {name: tx.init(parts[name]) for name, tx in optimizers(algorithm, parts, total_updates).items()}
    averaged = ("policy", "default_policy", "encoders") if algorithm.policy_average_updates else ()
    average = {name: _copy(getattr(agent, name)) for name in averaged}
    target = Target(agent, keeps_policy=algorithm.trust_region > 0)
    return Learner(agent, own, _copy(target), state, average)


def with_parameters(learner: Learner, modules: Mapping[str, Any]) -> Learner:
    """The fresh learner with these modules in the place of its own, and with their targets and averages."""
    agent = with_modules(learner.agent, modules)
    average = {name: _copy(getattr(agent, name)) for name in learner.average}
    return learner.replace(agent=agent, target=_copy(learner.target.renewed(agent)), average=average)


def observe(learner: Learner, observation: Observation, frozen: tuple[str, ...] = ()) -> Learner:
    """The learner whose agent has seen fresh observations; targets and averages get the same statistics.

    Args:
      learner: donated.
      observation: groups of all worlds, with any batch axes in front.
      frozen: modules that stay as they are, like "policy.high_level".
    """
    agent = learner.agent.observed(observation, frozen)
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
) -> tuple[Learner, dict[str, Float[Array, ""]]]:
    """One step of every optimizer on a time-major batch.

    Args:
      learner: donated.
      window: a time-major batch.
      key: consumed.
      count: updates made, this one included; every `target_update_period`-th moves the target.
      algorithm: its loss and its numbers.
      total_updates: of the whole run.
      frozen: modules that stay as they are, like "policy.high_level".
    """

    def loss(agent: Agent, own: dict[str, Any]) -> tuple[Float[Array, ""], dict[str, Float[Array, ""]]]:
        return algorithm.loss(with_learned(learner.agent, agent), learner.target, window, key, own)

    parameters = learned(learner.agent)
    gradients, metrics = jax.grad(loss, argnums=(0, 1), has_aux=True)(parameters, learner.own)
    with jax.named_scope("optimizer"):
        nothing = {name: jax.tree.map(jnp.zeros_like, module_at(gradients[0], name)) for name in frozen}
        gradients = _parts(with_modules(gradients[0], nothing), gradients[1])
        parts, optimizer_state = _parts(parameters, learner.own), {}
        for name, optimizer in optimizers(algorithm, parts, total_updates).items():
            state = learner.optimizer_state[name]
            change, optimizer_state[name] = optimizer.update(gradients[name], state, parts[name])
            parts[name] = optax.apply_updates(parts[name], change)
            metrics[f"{name}_gradient_norm"] = optax.tree.norm(gradients[name])
        agent = with_modules(parameters, {name: parts[name] for name in _PARTS if name in parts})
        agent = with_learned(learner.agent, agent)
        agent = with_modules(agent, {name: module_at(learner.agent, name) for name in frozen})
        rate = jnp.where(count % algorithm.target_update_period == 0, algorithm.target_update_rate, 0.0)
        target = map_learned(
            lambda old, new: rate * new + (1.0 - rate) * old, learner.target, learner.target.renewed(agent)
        )
        # All updates weigh alike until there are so many; and what is frozen stays to the last bit.
        share = 1.0 / jnp.clip(count, 1, max(1, algorithm.policy_average_updates))
        average = {
            name: map_learned(lambda old, new: old + share * (new - old), old, getattr(agent, name))
            for name, old in learner.average.items()
        }
    own = {name: parts[name] for name in learner.own}
    return Learner(agent, own, target, optimizer_state, average), metrics


def _parts(agent: Agent, own: Mapping[str, Any]) -> dict[str, Any]:
    """What has an optimizer each: the parts of the agent, and the algorithm's own parameters."""
    of_agent = {name: getattr(agent, name) for name in _PARTS}
    if not jax.tree.leaves(agent.encoders):
        del of_agent["encoders"]
    return {**of_agent, **own}


def _copy(tree: Any) -> Any:
    """Copies every array, because a donated state must not hold the same buffer twice."""
    return jax.tree.map(lambda x: x + 0, tree)


def _optimizers_by_name() -> dict[str, Callable[[optax.ScalarOrSchedule], optax.GradientTransformation]]:
    """The optax optimizers that need only a learning rate."""
    known = {}
    for name, value in vars(optax).items():
        if isinstance(value, FunctionType | functools.partial) and name not in _NOT_ALONE:
            first, *others = [*inspect.signature(value).parameters.values(), None]
            needed = [x for x in others if x is not None and x.default is x.empty]
            if first is not None and first.name == "learning_rate" and not needed:
                known[name] = value
    return known


_NOT_ALONE = ("lbfgs", "polyak_sgd", "scale_by_learning_rate")  # need the loss, or are only a part
