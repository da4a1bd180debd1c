"""An algorithm of its own: SVG(0) whose KL cost is a dual variable that holds the KL at a target."""

import dataclasses
from typing import Annotated

import jax
import jax.numpy as jnp
from annotated_types import Gt

from mjx_hkl.algorithms.svg import SVG


@dataclasses.dataclass(frozen=True)
class KLTarget(SVG):
    """Its fields and those of SVG are the recipe's [algorithm] table; `kl_cost` is where the cost begins."""

    kl_target: Annotated[float, Gt(0)] = 1.0
    """Mean KL of a step, nats."""
    dual_learning_rate: Annotated[float, Gt(0)] = 1e-2
    """Of the logarithm of the cost."""

    def parameters(self, agent, key):
        """What is learned beside the agent."""
        return {"log_kl_cost": jnp.log(jnp.float32(self.kl_cost))}

    def learning_rates(self):
        """Each parameter has an optimizer of its own."""
        return super().learning_rates() | {"log_kl_cost": self.dual_learning_rate}

    def costs(self, own):
        """The KL's cost now, and the entropy's. The loss of the policy does not move the cost."""
        return jax.lax.stop_gradient(jnp.exp(own["log_kl_cost"])), self.entropy_cost

    def loss(self, agent, target, window, key, own):
        """The loss of SVG, and that of the cost: it rises while the KL is above its target."""
        total, metrics = super().loss(agent, target, window, key, own)
        excess = jax.lax.stop_gradient(metrics["kl_high"] + metrics["kl_low"] - self.kl_target)
        return total - own["log_kl_cost"] * excess, metrics | {"kl_cost": jnp.exp(own["log_kl_cost"])}
