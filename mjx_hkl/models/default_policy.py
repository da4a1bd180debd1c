"""The default policy π0: what the policy is regularized towards, and what is distilled from it."""

from collections.abc import Mapping

from flax import nnx
from jax import lax
from jaxtyping import Array, Float

from mjx_hkl.math.autoregressive import ar1
from mjx_hkl.math.gaussian import Gaussian
from mjx_hkl.models.config import DefaultPolicyConfig, ModelConfig
from mjx_hkl.models.networks import MLP, Distribution, GaussianHead, Observation
from mjx_hkl.models.policy import ActionHead, LowLevel, Policy, action_head


class LearnedPrior(nnx.Module):
    """The learned AR process of §3.1: N(z_t; μ_φ(z_{t−1}), σ_φ²(z_{t−1}))."""

    def __init__(self, latent_size: int, config: ModelConfig, *, rngs: nnx.Rngs):
        hidden = config.default_policy.high_level_sizes
        self.torso = MLP(latent_size, hidden, rngs=rngs)
        self.head = GaussianHead(
            hidden[-1] if hidden else latent_size, latent_size, config.policy.latent_scale, rngs=rngs
        )

    def __call__(self, latent_tm1: Float[Array, "*batch latent"]) -> Gaussian:
        """The prior of z_t."""
        return self.head(self.torso(latent_tm1))


class DefaultPolicy(nnx.Module):
    """π0 = π0^H π0^L: a prior over latents, and a low level that is shared, its own, or none.

    `separate` (eq. 9) and `distral` are a network of their own that sees less than the policy;
    `distral_two_column` is one too, and the policy adds its own column to it; `distral_shared` is a branch
    on the policy's last features (F.2), which it does not move.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        action_size: int,
        policy: Policy,
        config: ModelConfig,
        *,
        rngs: nnx.Rngs,
    ):
        self.config: DefaultPolicyConfig = config.default_policy
        learned = self.config.high_level == "ar_learned"
        self.high_level = LearnedPrior(policy.latent_size, config, rngs=rngs) if learned else None
        self.low_level = _low_level(sizes, action_size, policy, config, rngs)

    def latent(self, latent_tm1: Float[Array, "*batch latent"]) -> Gaussian:
        """π0^H(z_t | z_{t−1})."""
        if self.high_level is not None:
            return self.high_level(latent_tm1)
        coefficient = self.config.ar_coefficient if self.config.high_level == "ar1" else 0.0
        return ar1(latent_tm1, coefficient)

    def action(
        self, policy: Policy, observation: Observation, latent: Float[Array, "*batch latent"]
    ) -> Distribution | None:
        """π0^L(a_t | z_t, x_t); None where it is the policy's own, or there is none."""
        if isinstance(self.low_level, ActionHead):
            return self.low_level(lax.stop_gradient(policy.low_level.features(observation, latent)))
        return None if self.low_level is None else self.low_level(observation, latent)

    def column(
        self, observation: Observation, latent: Float[Array, "*batch latent"]
    ) -> Float[Array, "*batch raw"] | None:
        """What a two-column policy adds to its own column before tanh and bounds; None for the others."""
        if self.config.low_level != "distral_two_column":
            return None
        assert isinstance(self.low_level, LowLevel)
        return self.low_level.head.linear(self.low_level.features(observation, latent))


def _low_level(
    sizes: Mapping[str, int], action_size: int, policy: Policy, config: ModelConfig, rngs: nnx.Rngs
) -> LowLevel | ActionHead | None:
    kind, hidden = config.default_policy.low_level, config.default_policy.low_level_sizes
    if kind in ("shared", "none"):
        return None
    if kind == "distral_shared":
        features = policy.low_level.head.linear.in_features
        return action_head(features, action_size, config, rngs=rngs)
    return LowLevel(sizes, config.information.default, hidden, action_size, config, rngs=rngs)
