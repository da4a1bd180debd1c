"""One update: gradients of the losses, three optimizers, and the target network."""

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

from mjx_hkl.algorithms import actor_critic, svg
from mjx_hkl.algorithms.config import AlgorithmConfig
from mjx_hkl.algorithms.hierarchy import Target
from mjx_hkl.algorithms.window import Window
from mjx_hkl.errors import UserError, unknown_name
from mjx_hkl.models.agent import Agent, module_at, with_modules


@flax.struct.dataclass
class Learner:
    """θ, φ, ψ, their targets, the optimizers' state by module, and averages of modules over updates."""

    agent: Agent
    target: Target
    optimizer_state: dict[str, optax.OptState]
    average: dict[str, Any]

    @property
    def averaged(self) -> Agent:
        """The agent to evaluate and export: modules that are averaged, and the others as they are."""
        return with_modules(self.agent, self.average)


def optimizers(config: AlgorithmConfig) -> dict[str, optax.GradientTransformation]:
    """An optimizer for each module of the agent.

    Raises:
      UserError: optax has no optimizer of that name.
    """
    known = _optimizers_by_name()
    if config.optimizer not in known:
        raise UserError(f"algorithm.optimizer: {unknown_name('optimizer', config.optimizer, known)}")
    optimizer = known[config.optimizer]
    rates = {
        "policy": config.policy_learning_rate,
        "default_policy": config.default_policy_learning_rate,
        "critic": config.critic_learning_rate,
    }

    def schedule(rate: float) -> optax.ScalarOrSchedule:
        updates = config.learning_rate_decay
        return optax.linear_schedule(rate, 0.1 * rate, updates) if updates else rate

    return {
        module: optax.chain(optax.clip_by_global_norm(config.max_gradient_norm), optimizer(schedule(rate)))
        for module, rate in rates.items()
    }


def init(agent: Agent, config: AlgorithmConfig) -> Learner:
    """A learner whose target equals the agent."""
    state = {module: tx.init(getattr(agent, module)) for module, tx in optimizers(config).items()}
    averaged = ("policy", "default_policy") if config.policy_average_updates else ()
    return Learner(
        agent, _copy(Target(agent)), state, {name: _copy(getattr(agent, name)) for name in averaged}
    )


def with_parameters(learner: Learner, modules: Mapping[str, Any]) -> Learner:
    """A fresh learner whose modules of these names, their targets and averages, are these instead."""
    agent = with_modules(learner.agent, modules)
    average = {name: _copy(getattr(agent, name)) for name in learner.average}
    return learner.replace(agent=agent, target=_copy(Target(agent)), average=average)


def update(
    learner: Learner,
    window: Window,
    key: PRNGKeyArray,
    count: Int[Array, ""],
    config: AlgorithmConfig,
    frozen: tuple[str, ...] = (),
) -> tuple[Learner, dict[str, Float[Array, ""]]]:
    """One step of every optimizer on a time-major batch.

    Args:
      learner: donated.
      window: a time-major batch.
      key: consumed.
      count: updates made, this one included; every `target_update_period`-th moves the target.
      config: learning rates and everything the loss needs.
      frozen: modules that stay as they are, like "policy.high_level".
    """
    loss = _LOSSES[config.kind]
    gradients, metrics = jax.grad(loss, has_aux=True)(learner.agent, learner.target, window, key, config)
    with jax.named_scope("optimizer"):
        nothing = {name: jax.tree.map(jnp.zeros_like, module_at(gradients, name)) for name in frozen}
        gradients = with_modules(gradients, nothing)
        modules, optimizer_state = {}, {}
        for name, optimizer in optimizers(config).items():
            gradient, module = getattr(gradients, name), getattr(learner.agent, name)
            change, optimizer_state[name] = optimizer.update(gradient, learner.optimizer_state[name], module)
            modules[name] = optax.apply_updates(module, change)
            metrics[f"{name}_gradient_norm"] = optax.tree.norm(gradient)
        agent = with_modules(learner.agent, modules)
        agent = with_modules(agent, {name: module_at(learner.agent, name) for name in frozen})
        rate = jnp.where(count % config.target_update_period == 0, config.target_update_rate, 0.0)
        target = jax.tree.map(lambda new, old: rate * new + (1.0 - rate) * old, Target(agent), learner.target)
        # All updates weigh alike until there are so many; and what is frozen stays to the last bit.
        share = 1.0 / jnp.clip(count, 1, max(1, config.policy_average_updates))
        average = {
            name: jax.tree.map(lambda new, old: old + share * (new - old), getattr(agent, name), old)
            for name, old in learner.average.items()
        }
    return Learner(agent, target, optimizer_state, average), metrics


def _copy(tree: Any) -> Any:
    """Other buffers: those of a state are donated together and must not be the same."""
    return jax.tree.map(lambda x: x + 0, tree)


_LOSSES = {"svg": svg.loss, "v_trace": actor_critic.loss}


def _optimizers_by_name() -> dict[str, Callable[[optax.ScalarOrSchedule], optax.GradientTransformation]]:
    """What of optax needs a learning rate and nothing else, gradients apart."""
    known = {}
    for name, value in vars(optax).items():
        if isinstance(value, FunctionType | functools.partial) and name not in _NOT_ALONE:
            first, *others = [*inspect.signature(value).parameters.values(), None]
            needed = [x for x in others if x is not None and x.default is x.empty]
            if first is not None and first.name == "learning_rate" and not needed:
                known[name] = value
    return known


_NOT_ALONE = ("lbfgs", "polyak_sgd", "scale_by_learning_rate")  # need the loss, or are only a part
