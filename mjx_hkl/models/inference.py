"""Inference networks: what a latent was, guessed from what was observed and done (Appendix A)."""

from typing import Any

from jaxtyping import Array, Float

from mjx_hkl.math.gaussian import Gaussian
from mjx_hkl.models.encoders import Inputs
from mjx_hkl.models.modules import ACTION, PREVIOUS_LATENT, Module, Observation, Place
from mjx_hkl.models.networks import MLP, GaussianHead


class InferenceNetwork(Module):
    """A Gaussian of a latent, given what is observed and done and the latent before."""

    bound_to_body = True
    infers = True

    def __init__(
        self, place: Place, sizes: tuple[int, ...], scale: tuple[float, float], sees_latent: bool = True
    ):
        before = (PREVIOUS_LATENT, place.latent_size * sees_latent)
        self.inputs = Inputs(place, before, (ACTION, place.action_size))
        self.sees, self.sees_latent, self.scale = self.inputs.sees, sees_latent, scale
        self.torso = MLP(self.inputs.size, sizes, rngs=place.rngs)
        self.head = GaussianHead(self.torso.size, place.latent_size, scale, rngs=place.rngs)

    def __call__(
        self,
        before: Float[Array, "*batch latent"],
        observation: Observation,
        action: Float[Array, "*batch action"],
    ) -> Gaussian:
        """The distribution of the latent of the step."""
        history = (before,) if self.sees_latent else ()
        return self.head(self.torso(self.inputs(observation, *history, action)))

    def fits(self) -> dict[str, Any]:
        """See `Module.fits`."""
        return {"range of scales": self.scale}
