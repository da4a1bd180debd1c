"""SVG(0) in the latent space of a low level that stays as it is (Appendix A)."""

import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from mjx_hkl.algorithms.svg import SVG
from mjx_hkl.algorithms.window import Window
from mjx_hkl.errors import UserError
from mjx_hkl.models.agent import Agent
from mjx_hkl.models.modules import Distribution, Observation
from mjx_hkl.models.steps import Latents


@dataclasses.dataclass(frozen=True)
class LatentSVG(SVG):
    """The latent is the action: it is stored with its density, and the critic is Q(z, x).

    A frozen π^L(a|s, z) is then a part of the world. The gradient of Q moves π^H through z itself; with `svg`
    it goes through a, which the critic sees beside z. Entropy is that of π^H.
    """

    acts_in_latents: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        off = {"behaviour_samples": 0, "latents": "redrawn", "exploration_correlation": 0.0}
        off["exploration_scale"] = (1.0, 1.0)  # as the correlation, of π^L's noise, which is the world's here
        off |= {"symmetries": False, "relabelled": 0.0}  # π^L would have acted otherwise on what it saw then
        for name, value in off.items():
            if getattr(self, name) != value:
                raise ValueError(f"{name} is for latents that are not the action; leave it out")

    def parameters(self, agent: Agent, key: PRNGKeyArray) -> dict[str, Any]:
        """See `Algorithm.parameters`.

        Raises:
          UserError: the agent has no latent that could be an action.
        """
        policy, default = agent.policy, agent.default_policy
        if not policy.latent_size:
            raise UserError("latent_svg acts in latents, and a flat policy has none: use svg")
        if policy.remembers or default.high_level.infers:
            raise UserError(
                "latent_svg needs latents that each step draws afresh: default_policy.high_level"
                " isotropic, latent_period 1, and a high level that does not remember"
            )
        if default.low_level.adds_kl:
            raise UserError("latent_svg needs default_policy.low_level shared: it leaves the low level alone")
        return super().parameters(agent, key)

    def acted(
        self, agent: Agent, observation: Observation, window: Window, latents: Latents
    ) -> tuple[Distribution, Float[Array, "time batch latent"]]:
        """See `SVG.acted`."""
        return latents.distribution, jnp.zeros((*latents.latent.shape[:-1], 0))
