"""Which algorithms a recipe's `[algorithm]` may choose by name."""

from mjx_hkl.algorithms.actor_critic import VTrace
from mjx_hkl.algorithms.algorithm import Algorithm
from mjx_hkl.algorithms.latent_svg import LatentSVG
from mjx_hkl.algorithms.svg import SVG
from mjx_hkl.kinds import Kinds

ALGORITHMS = Kinds(
    "[algorithm]",
    {"svg": SVG, "latent_svg": LatentSVG, "v_trace": VTrace},
    default="svg",
    base=Algorithm,
)
