"""Critics: values of actions or of states that also depend on the latent; kinds of a recipe's `[critic]`."""

import dataclasses

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mjx_hkl.config import Few, Sizes
from mjx_hkl.kinds import Kinds
from mjx_hkl.models.encoders import Inputs, latent_input
from mjx_hkl.models.modules import ACTION, Module, Observation, Place
from mjx_hkl.models.networks import MLP, tanh_layer_norm


@dataclasses.dataclass(frozen=True)
class CriticFields:
    """What every kind of critic has."""

    def build(self, place: Place, state_values: bool) -> Module:
        """A module from (observation, z_t, a_t) to values, or from (observation, z_t) if `state_values`.

        Called, it gives one value; its `each` gives those of every critic, on a leading axis.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class MLPCriticFields(CriticFields):
    """Networks whose first layer is followed by LayerNorm and tanh; the paper's (Appendix G)."""

    sizes: Sizes = (400, 300)
    """Hidden layer sizes; the first is followed by LayerNorm and tanh."""
    num_critics: Few = 1
    """Critics that learn side by side; of several (twins) the least value is used. The paper has one."""

    def __post_init__(self):
        if not self.sizes:
            raise ValueError("sizes needs at least one layer")

    def build(self, place: Place, state_values: bool) -> Module:
        """See `CriticFields.build`."""
        return Critic(place, self, state_values)


CRITICS = Kinds("[critic]", {"mlp": MLPCriticFields}, default="mlp", base=CriticFields)


class Critic(Module):
    """Q(a, z, x), or V(z, x) where the algorithm wants state values; one critic or several side by side."""

    bound_to_body = True

    def __init__(self, place: Place, fields: MLPCriticFields, state_values: bool):
        action = (ACTION, 0 if state_values else place.action_size)
        self.inputs = Inputs(place, latent_input(place), action)
        self.sees = self.inputs.sees
        self.members = nnx.List(
            ValueNetwork(self.inputs.size, fields.sizes, rngs=place.rngs) for _ in range(fields.num_critics)
        )

    def __call__(
        self,
        observation: Observation,
        latent: Float[Array, "*batch latent"],
        *action: Float[Array, "*batch action"],
    ) -> Float[Array, "*batch"]:
        """The value of the action or of the state; of several critics the least (Fujimoto et al. 2018)."""
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
