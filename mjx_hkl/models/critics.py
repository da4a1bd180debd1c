"""Critics: values of actions or of states that also depend on the latent; kinds of a recipe's `[critic]`."""

import dataclasses
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
from annotated_types import Ge
from flax import nnx
from jaxtyping import Array, Float
from pydantic import FiniteFloat

from mjx_hkl.config import Few, Many, PositiveFloat, Sizes
from mjx_hkl.kinds import Kinds
from mjx_hkl.math.hl_gauss import hl_gauss
from mjx_hkl.models.encoders import Inputs, latent_input
from mjx_hkl.models.modules import ACTION, Module, Observation, Place
from mjx_hkl.models.networks import MLP, first_layer, scale_and_bias, tanh_layer_norm


@dataclasses.dataclass(frozen=True)
class CriticFields:
    """What every kind of critic has."""

    def build(self, place: Place, state_values: bool) -> "Critic":
        """A critic of (observation, z_t, a_t), or of (observation, z_t) if `state_values`."""
        raise NotImplementedError


class Critic(Module):
    """Q(a, z, x), or V(z, x) where the algorithm wants state values; one critic or several side by side."""

    bound_to_body = True

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
        raise NotImplementedError

    def errors(
        self,
        target: Float[Array, "*batch"],
        observation: Observation,
        latent: Float[Array, "*batch latent"],
        *action: Float[Array, "*batch action"],
    ) -> tuple[Float[Array, "critics *batch"], Float[Array, "critics *batch"]]:
        """What learning lessens, for each critic the square of its error, and every critic's value."""
        values = self.each(observation, latent, *action)
        return jnp.square(target - values), values


@dataclasses.dataclass(frozen=True)
class MLPCriticFields(CriticFields):
    """Networks whose first layer is followed by LayerNorm and tanh; the paper's (Appendix G)."""

    sizes: Sizes = (400, 300)
    """Hidden layer sizes; the first is followed by LayerNorm and tanh."""
    layer_norm: bool = False
    """Whether the other hidden layers too are followed by LayerNorm, before their ELU."""
    gated: bool = False
    """Whether outputs of the first layer are multiplied by gates: products of instruction and places."""
    num_critics: Few = 1
    """Critics that learn side by side. The paper has one."""
    value_of_several: Literal["least", "mean"] = "least"
    """Of several critics, the value that others use: the least (twins, Fujimoto et al. 2018) or the mean."""
    clip_actions: bool = False
    """Whether critics see actions as the world takes them, clipped to [-1, 1]. Values are then flat beyond,
    as they are in the world; else they have there whatever slope the network continues."""

    def __post_init__(self):
        if not self.sizes:
            raise ValueError("sizes needs at least one layer")

    def build(self, place: Place, state_values: bool) -> Critic:
        """See `CriticFields.build`."""
        return MLPCritic(place, self, state_values)


@dataclasses.dataclass(frozen=True)
class HLGaussCriticFields(MLPCriticFields):
    """Networks that give a distribution over bins of values, learned by cross entropy (HL-Gauss)."""

    value_range: tuple[FiniteFloat, FiniteFloat] = (-10.0, 70.0)
    """Least and greatest value; what is learned from is clipped to it. By default what the shipped worlds ask
    for, whose greatest reward is 60."""
    num_bins: Annotated[Many, Ge(2)] = 81
    """Bins of equal width."""
    smoothing: PositiveFloat = 0.75
    """Standard deviation of the Gaussian around a target, in widths of a bin."""

    def __post_init__(self):
        super().__post_init__()
        low, high = self.value_range
        if low >= high:
            raise ValueError(f"value_range needs its least value below its greatest, not {low} and {high}")

    def build(self, place: Place, state_values: bool) -> Critic:
        """See `CriticFields.build`."""
        return HLGaussCritic(place, self, state_values)


CRITICS = Kinds(
    "[critic]", {"mlp": MLPCriticFields, "hl_gauss": HLGaussCriticFields}, default="mlp", base=CriticFields
)


class MLPCritic(Critic):
    """The paper's."""

    outputs = 1

    def __init__(self, place: Place, fields: MLPCriticFields, state_values: bool):
        action = (ACTION, 0 if state_values else place.action_size)
        self.inputs = Inputs(place, latent_input(place), action)
        self.sees = self.inputs.sees
        self.takes_mean = fields.value_of_several == "mean"
        self.clips = fields.clip_actions and place.action_kind not in ("categorical", "latent")
        shape = self.inputs.size, fields.sizes, self.outputs, fields.layer_norm, fields.gated
        self.members = nnx.List(ValueNetwork(*shape, rngs=place.rngs) for _ in range(fields.num_critics))

    def __call__(
        self,
        observation: Observation,
        latent: Float[Array, "*batch latent"],
        *action: Float[Array, "*batch action"],
    ) -> Float[Array, "*batch"]:
        """See `Critic.__call__`."""
        values = self.each(observation, latent, *action)
        return values.mean(0) if self.takes_mean else values.min(0)

    def each(
        self,
        observation: Observation,
        latent: Float[Array, "*batch latent"],
        *action: Float[Array, "*batch action"],
    ) -> Float[Array, "critics *batch"]:
        """Every critic's value."""
        return self.raw(observation, latent, *action)[..., 0]

    def raw(
        self,
        observation: Observation,
        latent: Float[Array, "*batch latent"],
        *action: Float[Array, "*batch action"],
    ) -> Float[Array, "critics *batch outputs"]:
        """Every network's outputs."""
        if self.clips:
            action = tuple(jnp.clip(x, -1.0, 1.0) for x in action)
        inputs = self.inputs(observation, latent, *action)
        return jnp.stack([member(inputs) for member in self.members])


class HLGaussCritic(MLPCritic):
    """Values as means of categorical distributions over bins."""

    def __init__(self, place: Place, fields: HLGaussCriticFields, state_values: bool):
        self.outputs = fields.num_bins
        super().__init__(place, fields, state_values)
        self.value_range, self.smoothing = fields.value_range, fields.smoothing
        for member in self.members:  # values start near 0, as the paper's do: those of all bins are far above
            assert member.value.bias is not None, "made with one"
            member.value.bias[...] = jnp.log(self._bins(jnp.zeros(()), 0.05 * fields.num_bins) + 1e-3)

    def each(
        self,
        observation: Observation,
        latent: Float[Array, "*batch latent"],
        *action: Float[Array, "*batch action"],
    ) -> Float[Array, "critics *batch"]:
        """Every critic's value."""
        return self._means(self.raw(observation, latent, *action))

    def errors(
        self,
        target: Float[Array, "*batch"],
        observation: Observation,
        latent: Float[Array, "*batch latent"],
        *action: Float[Array, "*batch action"],
    ) -> tuple[Float[Array, "critics *batch"], Float[Array, "critics *batch"]]:
        """Cross entropies to the bins of a Gaussian around the target, and every critic's value."""
        logits = self.raw(observation, latent, *action)
        bins = self._bins(target, self.smoothing)
        return -(bins * jax.nn.log_softmax(logits)).sum(-1), self._means(logits)

    def fits(self) -> dict[str, Any]:
        """See `Module.fits`."""
        return {"range of values": self.value_range}

    def _bins(self, value: Float[Array, "*batch"], smoothing: float) -> Float[Array, "*batch bins"]:
        return hl_gauss(value, *self.value_range, self.outputs, smoothing)

    def _means(self, logits: Float[Array, "*batch bins"]) -> Float[Array, "*batch"]:
        edges = jnp.linspace(*self.value_range, self.outputs + 1)
        return jax.nn.softmax(logits) @ (0.5 * (edges[1:] + edges[:-1]))


class ValueNetwork(nnx.Module):
    """One network; its first layer is followed by LayerNorm and tanh."""

    def __init__(
        self,
        inputs: int,
        sizes: tuple[int, ...],
        outputs: int,
        layer_norm: bool = False,
        gated: bool = False,
        *,
        rngs: nnx.Rngs,
    ):
        first, *rest = sizes
        self.first = first_layer(inputs, first, gated, rngs=rngs)
        self.norm = nnx.LayerNorm(first, rngs=rngs)
        self.rest = MLP(first, tuple(rest), layer_norm, rngs=rngs)
        self.value = nnx.Linear(sizes[-1], outputs, rngs=rngs)

    def __call__(self, inputs: Float[Array, "*batch n"]) -> Float[Array, "*batch outputs"]:
        """The outputs for each input."""
        # One axis is faster than several. The batch, which devices may share, is its outer part: time would
        # have to be gathered.
        batch_major = jnp.moveaxis(jnp.atleast_2d(inputs), -2, 0)
        rows = batch_major.reshape(-1, inputs.shape[-1])
        features = tanh_layer_norm(self.first(rows), *scale_and_bias(self.norm))
        values = self.value(self.rest(features)).reshape(*batch_major.shape[:-1], -1)
        return jnp.moveaxis(values, 0, -2).reshape(*inputs.shape[:-1], -1)
