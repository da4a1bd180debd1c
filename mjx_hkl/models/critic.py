"""The critic: values of actions, or of states, that also depend on the latent."""

from collections.abc import Mapping

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mjx_hkl.models.config import ModelConfig
from mjx_hkl.models.networks import MLP, Inputs, Observation, tanh_layer_norm


class Critic(nnx.Module):
    """Q(a, z, x), or V(z, x) where the algorithm asks for state values; or several of them side by side."""

    def __init__(self, sizes: Mapping[str, int], action_size: int, config: ModelConfig, *, rngs: nnx.Rngs):
        self.inputs = Inputs(sizes, config.information.critic, config, rngs=rngs)
        self.sees_action = not config.state_values
        inputs = self.inputs.size + config.policy.latent_size + self.sees_action * action_size
        self.members = nnx.List(
            ValueNetwork(inputs, config.critic.sizes, rngs=rngs) for _ in range(config.critic.num_critics)
        )

    def __call__(
        self,
        observation: Observation,
        latent: Float[Array, "*batch latent"],
        *action: Float[Array, "*batch action"],
    ) -> Float[Array, "*batch"]:
        """The value, of an action where there is one; of several critics the least (Fujimoto et al. 2018)."""
        return self.each(observation, latent, *action).min(0)

    def each(
        self,
        observation: Observation,
        latent: Float[Array, "*batch latent"],
        *action: Float[Array, "*batch action"],
    ) -> Float[Array, "critics *batch"]:
        """Every critic's value."""
        inputs = self.inputs(observation, latent, *action)
        return jnp.stack([member(inputs) for member in self.members])


class ValueNetwork(nnx.Module):
    """One network; its first layer is followed by LayerNorm and tanh."""

    def __init__(self, inputs: int, sizes: tuple[int, ...], *, rngs: nnx.Rngs):
        first, *rest = sizes
        self.first = nnx.Linear(inputs, first, rngs=rngs)
        self.norm = nnx.LayerNorm(first, rngs=rngs)
        self.rest = MLP(first, tuple(rest), rngs=rngs)
        self.value = nnx.Linear(sizes[-1], 1, rngs=rngs)

    def __call__(self, inputs: Float[Array, "*batch n"]) -> Float[Array, "*batch"]:
        """The value of each input."""
        scale, bias = self.norm.scale, self.norm.bias
        assert scale is not None, "made with one"
        assert bias is not None, "likewise"
        # One axis is faster than several. The batch, which devices may share, is its outer part: time would
        # have to be gathered.
        batch_major = jnp.moveaxis(jnp.atleast_2d(inputs), -2, 0)
        rows = batch_major.reshape(-1, inputs.shape[-1])
        features = tanh_layer_norm(self.first(rows), scale[...], bias[...])
        values = self.value(self.rest(features)).reshape(batch_major.shape[:-1])
        return jnp.moveaxis(values, 0, -1).reshape(inputs.shape[:-1])
