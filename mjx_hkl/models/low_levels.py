"""Low levels π^L(a_t | z_t, x_t), or flat policies: kinds of a recipe's `[policy.low_level]`."""

import dataclasses
from typing import Any

from jaxtyping import Array, Float

from mjx_hkl.config import Sizes
from mjx_hkl.kinds import Kinds
from mjx_hkl.models.encoders import Inputs, latent_input
from mjx_hkl.models.high_levels import Gain, ScaleRange, require_range
from mjx_hkl.models.modules import Distribution, Module, Observation, Place
from mjx_hkl.models.networks import HEAD_GAIN, MLP, action_head


@dataclasses.dataclass(frozen=True)
class LowLevelFields:
    """What every kind of low level has."""

    def build(self, place: Place) -> Module:
        """A module of (observation, z_t) to the distribution of a_t before clipping.

        The module must have a `head`, whose `distribution` gives the noise of actions. DISTRAL with two
        columns and with shared features (F.2) also need `features`, `head.linear` and `head.bounded`.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class MLPLowLevelFields(LowLevelFields):
    """A network with a head that suits the world's actions; the paper's."""

    sizes: Sizes = (200, 100)
    """Hidden layer sizes."""
    scale: ScaleRange = (0.05, 1.0)
    """Least and greatest standard deviation of an action, before clipping to [-1, 1]."""
    layer_norm: bool = False
    """Whether each hidden layer is followed by LayerNorm, before its ELU."""
    gated: bool = False
    """Whether outputs of the first layer are multiplied by gates: products of instruction and places, for a
    flat policy, or of the latent and what the body feels."""
    head_gain: Gain = HEAD_GAIN
    """The head's initial weights, as a share of the usual ones (LeCun's). With small ones a latent hardly
    changes the action at first."""

    def __post_init__(self):
        require_range(*self.scale)

    def build(self, place: Place) -> Module:
        """See `LowLevelFields.build`."""
        return MLPLowLevel(place, self.sizes, self.scale, self.layer_norm, self.gated, self.head_gain)


LOW_LEVELS = Kinds("[policy.low_level]", {"mlp": MLPLowLevelFields}, default="mlp", base=LowLevelFields)


class MLPLowLevel(Module):
    """π^L, or a π0^L of its own."""

    bound_to_body = True

    def __init__(
        self,
        place: Place,
        sizes: tuple[int, ...],
        scale: tuple[float, float],
        layer_norm: bool = False,
        gated: bool = False,
        head_gain: float = HEAD_GAIN,
    ):
        self.inputs = Inputs(place, latent_input(place))
        self.sees = self.inputs.sees
        self.torso = MLP(self.inputs.size, sizes, layer_norm, gated, rngs=place.rngs)
        self.head = action_head(self.torso.size, place, scale, head_gain)
        self.scale, self.latent_size = scale, place.latent_size

    def __call__(self, observation: Observation, latent: Float[Array, "*batch latent"]) -> Distribution:
        """The distribution of a_t, before clipping."""
        return self.head(self.features(observation, latent))

    def features(
        self, observation: Observation, latent: Float[Array, "*batch latent"]
    ) -> Float[Array, "*batch n"]:
        """What the head sees."""
        return self.torso(self.inputs(observation, latent))

    def fits(self) -> dict[str, Any]:
        """See `Module.fits`."""
        return {"range of scales": self.scale}
