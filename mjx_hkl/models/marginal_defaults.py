"""Default policies that see neither task nor latent, and so marginalize over both (Appendix A, figure 8)."""

import dataclasses
from typing import Annotated, Any

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mjx_hkl.config import Few, Positive, Sizes
from mjx_hkl.errors import UserError
from mjx_hkl.models.default_base import Cost, DefaultLowLevel, DefaultLowLevelFields, Given
from mjx_hkl.models.encoders import Inputs
from mjx_hkl.models.high_levels import ScaleRange, require_range
from mjx_hkl.models.inference import InferenceNetwork
from mjx_hkl.models.low_levels import MLPLowLevel
from mjx_hkl.models.modules import Distribution, Observation, Place
from mjx_hkl.models.networks import MLP, action_head
from mjx_hkl.models.priors import AR1, PRIORS, PriorFields


@dataclasses.dataclass(frozen=True)
class FeedForward(DefaultLowLevelFields):
    """π0(a_t | s_t): a network; with a flat policy this is DISTRAL."""

    sizes: Sizes = (200, 100)
    """Hidden layer sizes."""
    scale: ScaleRange = (0.05, 1.0)
    """Least and greatest standard deviation of an action."""

    def __post_init__(self):
        require_range(*self.scale)

    def build(self, place: Place, low_level: Any) -> DefaultLowLevel:
        """See `DefaultLowLevelFields.build`."""
        return FeedForwardLowLevel(_without_latent(place), self.sizes, self.scale)


@dataclasses.dataclass(frozen=True)
class LSTM(DefaultLowLevelFields):
    """π0(a_t | s_1, ..., s_t): a network that remembers (Hochreiter and Schmidhuber 1997)."""

    size: Positive = 128
    """Numbers of its state, and as many of its output."""
    sizes: Sizes = ()
    """Hidden layer sizes between output and head."""
    scale: ScaleRange = (0.05, 1.0)
    """Least and greatest standard deviation of an action."""

    def __post_init__(self):
        require_range(*self.scale)

    def build(self, place: Place, low_level: Any) -> DefaultLowLevel:
        """See `DefaultLowLevelFields.build`."""
        return LSTMLowLevel(_without_latent(place), self)


@dataclasses.dataclass(frozen=True)
class LatentVariable(DefaultLowLevelFields):
    """∫ π0(a | s, y) π0(y) dy with a latent y_t of its own in each step, and a learned inference network."""

    latent_size: Few = 10
    """Numbers of y."""
    prior: Annotated[PriorFields, PRIORS] = AR1()
    """π0(y_t | y_{t−1})."""
    sizes: Sizes = (200, 100)
    """Hidden layer sizes of π0(a | s, y)."""
    scale: ScaleRange = (0.05, 1.0)
    """Least and greatest standard deviation of an action."""
    posterior_sizes: Sizes = (200, 100)
    """Hidden layer sizes of f(y_t | y_{t−1}, s_t, a_t)."""
    posterior_scale: ScaleRange = (0.05, 1.0)
    """Least and greatest standard deviation of y there."""

    def __post_init__(self):
        require_range(*self.scale)
        require_range(*self.posterior_scale)

    def build(self, place: Place, low_level: Any) -> DefaultLowLevel:
        """See `DefaultLowLevelFields.build`.

        Raises:
          UserError: actions are discrete, or the prior depends on more than y_{t−1}.
        """
        if place.action_kind != "gaussian":
            raise UserError(
                "[default_policy.low_level] kind latent_variable needs Gaussian actions: its bound is of"
                " sampled ones; choose feed_forward or lstm"
            )
        return LatentVariableLowLevel(_without_latent(place), self)


def _without_latent(place: Place) -> Place:
    return dataclasses.replace(place, latent_size=0, sees_latent=False)


class FeedForwardLowLevel(DefaultLowLevel, MLPLowLevel):
    """A network of its own, whatever the policy's latent is."""

    adds_kl = True

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride] - what a default low level is called with
        self, low_level: Any, observation: Observation, latent: Float[Array, "*batch latent"]
    ) -> Distribution:
        """See `DefaultLowLevel`."""
        return self.head(self.features(observation, latent[..., :0]))


class LSTMLowLevel(DefaultLowLevel):
    """Its memory is the cell's state and output."""

    adds_kl = True
    remembers = True
    bound_to_body = True

    def __init__(self, place: Place, fields: LSTM):
        self.inputs = Inputs(place)
        self.sees, self.size, self.scale = self.inputs.sees, fields.size, fields.scale
        self.cell = nnx.OptimizedLSTMCell(self.inputs.size, fields.size, rngs=place.rngs)
        self.torso = MLP(fields.size, fields.sizes, rngs=place.rngs)
        self.head = action_head(self.torso.size, place, fields.scale)

    def start(self, batch: tuple[int, ...]) -> tuple[Array, Array]:
        """Zeros."""
        return jnp.zeros((*batch, self.size)), jnp.zeros((*batch, self.size))

    def step(self, memory: Any, *inputs: Any) -> tuple[Any, Distribution]:
        """See `DefaultLowLevel`."""
        _, observation, _ = inputs
        memory, features = self.cell(memory, self.inputs(observation))
        return memory, self.head(self.torso(features))

    def fits(self) -> dict[str, Any]:
        """See `Module.fits`."""
        return {"range of scales": self.scale}


class LatentVariableLowLevel(DefaultLowLevel):
    """π0(τ) = ∫ Π_t π0(a_t | s_t, y_t) π0(y_t | y_{t−1}) dy, bounded by inference (eq. 15).

    f(y_t | y_{t−1}, s_t, a_t) sees the past through y_{t−1} and nothing of what comes, so that the bound
    decomposes over time. Its memory is y_{t−1}, drawn from f at the actions that were taken; y_0 is 0.

    Attributes:
      decoder: π0(a | s, y), a low level that a policy with a latent of this size can take over.
      prior: π0(y_t | y_{t−1}).
      posterior: f.
    """

    adds_kl = True
    remembers = True
    bound_to_body = True
    parts = ("decoder",)

    def __init__(self, place: Place, fields: LatentVariable):
        self.latent_size = self.noise_size = fields.latent_size
        own = dataclasses.replace(place, latent_size=fields.latent_size)
        self.decoder: Any = MLPLowLevel(own, fields.sizes, fields.scale)
        self.prior: Any = fields.prior.build(own)
        self.posterior: Any = InferenceNetwork(own, fields.posterior_sizes, fields.posterior_scale)
        self.sees = self.posterior.sees
        if self.prior.remembers or self.prior.infers:
            raise UserError(
                "[default_policy.low_level] prior must be one over y_t that depends on y of the step before"
                " alone, like isotropic, ar1 or ar_learned"
            )

    def start(self, batch: tuple[int, ...]) -> Array:
        """y_0."""
        return jnp.zeros((*batch, self.latent_size))

    def remembered(
        self,
        memory: Array,
        low_level: Any,
        observation: Observation,
        latent: Float[Array, "*batch latent"],
        taken: Float[Array, "*batch action"],
        noise: Float[Array, "*batch noise"],
    ) -> Array:
        """See `DefaultLowLevel.remembered`: y_t ~ f(y_t | y_{t−1}, s_t, a_t)."""
        return self.posterior(memory, observation, taken).draw(noise)

    def cost(
        self,
        memory: Array,
        low_level: Any,
        observation: Observation,
        latent: Float[Array, "*batch latent"],
        policy: Distribution,
        given: Given,
    ) -> Cost:
        """See `DefaultLowLevel.cost`: −H[π(a_t|x_t)] − E_f[log π0(a_t|s_t,y_t)] + KL(f ‖ π0(y_t|y_{t−1})).

        One sample of a_t and of y_t stands for the expectations.
        """
        inferred = self.posterior(memory, observation, given.action)
        decoded = self.decoder(observation, inferred.draw(given.noise))
        reconstruction = -decoded.log_prob(given.action)
        kl = inferred.kl_divergence(self.prior(memory))
        parts = {"reconstruction": reconstruction, "kl_inferred": kl}
        return Cost(reconstruction + kl - policy.entropy(), parts)

    def fits(self) -> dict[str, Any]:
        """See `Module.fits`."""
        return {"prior": type(self.prior).__name__, "range of scales": self.decoder.scale}
