"""High levels π^H(z_t | x_t): kinds of a recipe's `[policy.high_level]`."""

import dataclasses
from typing import Annotated, Any, ClassVar

import jax.numpy as jnp
from annotated_types import Ge, Gt, Le, Lt
from jaxtyping import Array, Float

from mjx_hkl.config import Few, Many, NonNegativeFloat, PositiveFloat, Sizes
from mjx_hkl.errors import UserError
from mjx_hkl.kinds import Kinds
from mjx_hkl.math.gaussian import Gaussian
from mjx_hkl.models.encoders import Inputs, history_input
from mjx_hkl.models.modules import Module, Observation, Place
from mjx_hkl.models.networks import HEAD_GAIN, MLP, GaussianHead

ScaleRange = tuple[PositiveFloat, PositiveFloat]
Gain = Annotated[float, Gt(0), Le(100)]


def require_range(low: float, high: float) -> None:
    """Raises ValueError where bounds of a standard deviation are no range."""
    if low >= high:
        raise ValueError(f"scale needs its least value below its greatest, not {low} and {high}")


@dataclasses.dataclass(frozen=True)
class HighLevelFields:
    """What every kind of high level has."""

    latent_size: Few = 10
    """Numbers of a latent z (Appendix G: 10)."""
    latent_period: Many = 1
    """p of eq. 27: a latent is drawn every so many steps and kept in between."""

    def build(self, place: Place) -> Module:
        """A module from (observation, z_{t−1}) to the Gaussian of z_t, of z_{t−1} if `place.sees_latent`."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class NoHighLevel(HighLevelFields):
    """A flat policy: its latent has size 0, so that one algorithm serves both."""

    latent_size: ClassVar[int] = 0  # pyright: ignore[reportIncompatibleVariableOverride]
    latent_period: ClassVar[int] = 1  # pyright: ignore[reportIncompatibleVariableOverride]

    def build(self, place: Place) -> Module:
        """See `HighLevelFields.build`."""
        return EmptyHighLevel()


@dataclasses.dataclass(frozen=True)
class MLPHighLevelFields(HighLevelFields):
    """A network with a Gaussian head; the paper's."""

    sizes: Sizes = (200,)
    """Hidden layer sizes (Appendix G's "(200, 10)" is these and the latent size)."""
    scale: ScaleRange = (0.05, 1.0)
    """Least and greatest standard deviation of a latent."""
    mean_bound: NonNegativeFloat = 0.0
    """b: μ, the mean of a latent, is bounded as b tanh(μ / b); 0: unbounded. A latent that the next one is
    made from can grow from step to step where the KL does not hold it."""
    coefficient: Annotated[float, Ge(0), Lt(1)] = 0.0
    """c: the mean of a latent is c z_{t−1} + μ. With the coefficient of an AR(1) prior the policy begins near
    the prior, so that its noise lasts, and μ alone is paid for."""
    layer_norm: bool = False
    """Whether each hidden layer is followed by LayerNorm, before its ELU."""
    gated: bool = False
    """Whether outputs of the first layer are multiplied by gates: products of instruction and places."""
    head_gain: Gain = HEAD_GAIN
    """The head's initial weights, as a share of the usual ones (LeCun's). With small ones all observations
    give much the same latents at first."""

    def __post_init__(self):
        require_range(*self.scale)

    def build(self, place: Place) -> Module:
        """See `HighLevelFields.build`.

        Raises:
          UserError: there is a coefficient, and the prior does not depend on z_{t−1}.
        """
        if self.coefficient and not place.sees_latent:
            raise UserError(
                "policy.high_level.coefficient is of the latent before, which the high level sees only with a"
                " prior that does: set default_policy.high_level to ar1 or ar_learned"
            )
        return MLPHighLevel(place, self)


HIGH_LEVELS = Kinds(
    "[policy.high_level]",
    {"mlp": MLPHighLevelFields, "none": NoHighLevel},
    default="mlp",
    base=HighLevelFields,
)


class EmptyHighLevel(Module):
    """The high level of a flat policy: the latent, its distribution and its KL are empty."""

    def __call__(self, observation: Observation, latent_tm1: Float[Array, "*batch 0"]) -> Gaussian:
        """The empty distribution."""
        return Gaussian(latent_tm1, latent_tm1)


class MLPHighLevel(Module):
    """π^H(z_t | x_t). Where the prior depends on z_{t−1}, x_t includes z_{t−1} (§3.1)."""

    def __init__(self, place: Place, fields: MLPHighLevelFields):
        self.inputs = Inputs(place, history_input(place))
        self.sees = self.inputs.sees
        self.sees_latent = place.sees_latent
        self.mean_bound, self.coefficient = fields.mean_bound, fields.coefficient
        self.torso = MLP(self.inputs.size, fields.sizes, fields.layer_norm, fields.gated, rngs=place.rngs)
        self.head = GaussianHead(
            self.torso.size, place.latent_size, fields.scale, fields.head_gain, rngs=place.rngs
        )

    def __call__(self, observation: Observation, latent_tm1: Float[Array, "*batch latent"]) -> Gaussian:
        """The distribution of z_t."""
        history = (latent_tm1,) if self.sees_latent else ()
        latent = self.head(self.torso(self.inputs(observation, *history)))
        mean = latent.mean
        if self.mean_bound:
            mean = self.mean_bound * jnp.tanh(mean / self.mean_bound)
        if self.coefficient:
            mean += self.coefficient * latent_tm1
        return Gaussian(mean, latent.scale)

    def fits(self) -> dict[str, Any]:
        """See `Module.fits`."""
        return {
            "range of scales": self.head.scale_range,
            "bound of means": self.mean_bound,
            "coefficient": self.coefficient,
        }
