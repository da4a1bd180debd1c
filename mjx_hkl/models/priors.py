"""Priors over latents π0^H(z_t | z_{t−1}) (§3.1): kinds of a recipe's `[default_policy.high_level]`."""

import dataclasses
from typing import Annotated, Any, ClassVar

from annotated_types import Ge, Lt
from jaxtyping import Array, Float

from mjx_hkl.config import Sizes
from mjx_hkl.errors import UserError
from mjx_hkl.kinds import Kinds
from mjx_hkl.math.autoregressive import ar1
from mjx_hkl.math.gaussian import Gaussian
from mjx_hkl.models.high_levels import ScaleRange, require_range
from mjx_hkl.models.inference import InferenceNetwork
from mjx_hkl.models.modules import PREVIOUS_LATENT, Module, Place
from mjx_hkl.models.networks import MLP, GaussianHead


@dataclasses.dataclass(frozen=True)
class PriorFields:
    """What every kind of prior says.

    Attributes:
      sees_latent: whether z_t depends on z_{t−1}, or on latents before it. The high level then sees z_{t−1}
        too, and latents are drawn in order.
      flat: whether it is of a flat policy (True) or of one with a latent (False); None: of either.
    """

    sees_latent: ClassVar[bool] = True
    flat: ClassVar[bool | None] = False

    def build(self, place: Place) -> Module:
        """A module of z_{t−1} to the Gaussian of z_t."""
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class Isotropic(PriorFields):
    """N(0, 1), whatever came before."""

    sees_latent: ClassVar[bool] = False
    flat: ClassVar[bool | None] = None

    def build(self, place: Place) -> Module:
        """See `PriorFields.build`."""
        return AR1Prior(0.0)


@dataclasses.dataclass(frozen=True)
class NoPrior(Isotropic):
    """No prior, for a flat policy, which has no latent."""

    flat: ClassVar[bool | None] = True


@dataclasses.dataclass(frozen=True)
class AR1(PriorFields):
    """N(α z_{t−1}, √(1 − α²)): the marginal is N(0, 1)."""

    coefficient: Annotated[float, Ge(0), Lt(1)] = 0.95
    """α."""

    def build(self, place: Place) -> Module:
        """See `PriorFields.build`."""
        return AR1Prior(self.coefficient)


@dataclasses.dataclass(frozen=True)
class ARLearned(PriorFields):
    """N(μ_φ(z_{t−1}), σ_φ²(z_{t−1})): learned functions of the latent before."""

    sizes: Sizes = (200,)
    """Hidden layer sizes."""
    scale: ScaleRange = (0.05, 1.0)
    """Least and greatest standard deviation."""

    def __post_init__(self):
        require_range(*self.scale)

    def build(self, place: Place) -> Module:
        """See `PriorFields.build`."""
        return LearnedPrior(place, self)


@dataclasses.dataclass(frozen=True)
class Posterior(PriorFields):
    """No prior: a learned g(z_t | s_t, a_t). Latents are the policy's own, and g bounds its entropy (eq. 16).

    What a latent costs is log π^H(z|x) − log g(z|τ): nothing, where it can be told from what is done.
    """

    sees_latent: ClassVar[bool] = False
    sizes: Sizes = (200, 100)
    """Hidden layer sizes."""
    scale: ScaleRange = (0.05, 1.0)
    """Least and greatest standard deviation."""

    def __post_init__(self):
        require_range(*self.scale)

    def build(self, place: Place) -> Module:
        """See `PriorFields.build`.

        Raises:
          UserError: actions are discrete.
        """
        if place.action_kind != "gaussian":
            raise UserError(
                "[default_policy.high_level] kind posterior sees actions, which must be Gaussian: choose"
                " another"
            )
        return InferenceNetwork(place, self.sizes, self.scale, sees_latent=False)


PRIORS = Kinds(
    "[default_policy.high_level]",
    {"isotropic": Isotropic, "ar1": AR1, "ar_learned": ARLearned, "posterior": Posterior, "none": NoPrior},
    default="isotropic",
    base=PriorFields,
)


class AR1Prior(Module):
    """A process of first order with a fixed coefficient; 0 is the isotropic Gaussian."""

    sees = (PREVIOUS_LATENT,)

    def __init__(self, coefficient: float):
        self.coefficient = coefficient

    def __call__(self, latent_tm1: Float[Array, "*batch latent"]) -> Gaussian:
        """The prior of z_t."""
        return ar1(latent_tm1, self.coefficient)


class LearnedPrior(Module):
    """The learned AR process."""

    sees = (PREVIOUS_LATENT,)

    def __init__(self, place: Place, fields: ARLearned):
        self.torso = MLP(place.latent_size, fields.sizes, rngs=place.rngs)
        self.head = GaussianHead(self.torso.size, place.latent_size, fields.scale, rngs=place.rngs)

    def __call__(self, latent_tm1: Float[Array, "*batch latent"]) -> Gaussian:
        """The prior of z_t."""
        return self.head(self.torso(latent_tm1))

    def fits(self) -> dict[str, Any]:
        """See `Module.fits`."""
        return {"range of scales": self.head.scale_range}
