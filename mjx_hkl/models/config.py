"""The tables of a recipe that say what is learned: sizes, kinds, and who sees what."""

import dataclasses
from collections.abc import Iterable
from typing import Annotated, Literal

from annotated_types import Ge, Lt

from mjx_hkl.config import Positive, PositiveFloat, Sizes
from mjx_hkl.errors import UserError, unknown_name

HighLevelPrior = Literal["isotropic", "ar1", "ar_learned", "none"]
LowLevelPrior = Literal["shared", "separate", "distral", "distral_two_column", "distral_shared", "none"]

_LATENT = ("isotropic", "ar1", "ar_learned")
_HIERARCHICAL = ("shared", "separate")
_FLAT = ("none", "distral", "distral_two_column", "distral_shared")


@dataclasses.dataclass(frozen=True)
class Information:
    """Which observation groups each module sees (§3.1, Table 1); empty: what suits the environment."""

    high_level: tuple[str, ...] = ()
    """The high level; by default everything."""
    low_level: tuple[str, ...] = ()
    """The low level, by default as the environment's file says; or all of a flat policy, everything."""
    critic: tuple[str, ...] = ()
    """The critic; by default everything."""
    default: tuple[str, ...] = ()
    """The low level of the default policy, where it has its own; by default what the low level of a
    hierarchical policy sees, which hides the task."""

    def check(self, groups: Iterable[str]) -> None:
        """Raises UserError where a module is given a group the environment does not have."""
        for module, seen in dataclasses.asdict(self).items():
            for name in seen:
                if name not in groups:
                    raise UserError(
                        f"information.{module}: {unknown_name('observation group', name, groups)}"
                    )
            if not seen:
                raise UserError(f"information.{module} names no observation group: it would see nothing")
            if len(set(seen)) < len(seen):
                raise UserError(f"information.{module} names a group twice: {', '.join(seen)}")


@dataclasses.dataclass(frozen=True)
class PolicyConfig:
    """The policy π: a high level over latents and a low level over actions, or flat."""

    kind: Literal["hierarchical", "flat"] = "hierarchical"
    """A flat policy is a low level without latents (the SVG-0 baseline)."""
    high_level: Sizes = (200, 10)
    """Layer sizes of the high level; the last is the latent size."""
    latent_period: Positive = 1
    """p of eq. 27: steps between draws of a latent, which is kept in between."""
    low_level: Sizes = (200, 100)
    """Hidden layer sizes of the low level or of a flat policy."""
    latent_scale: tuple[PositiveFloat, PositiveFloat] = (0.05, 1.0)
    """Least and greatest standard deviation of a latent."""
    action_scale: tuple[PositiveFloat, PositiveFloat] = (0.05, 1.0)
    """Least and greatest standard deviation of an action, before clipping to [-1, 1]."""
    actions: Literal["auto", "gaussian", "categorical"] = "auto"
    """Distribution of actions; auto is what suits the environment."""

    def __post_init__(self):
        for name in ("latent_scale", "action_scale"):
            low, high = getattr(self, name)
            if low >= high:
                raise ValueError(f"{name} needs its least value below its greatest, not {low} and {high}")
        if not self.high_level:
            raise ValueError("high_level needs at least one size, the latent size")

    @property
    def latent_size(self) -> int:
        """Size of z; 0 for a flat policy."""
        return self.high_level[-1] if self.kind == "hierarchical" else 0


@dataclasses.dataclass(frozen=True)
class DefaultPolicyConfig:
    """The default policy π0 (§3.1, F.2)."""

    high_level: HighLevelPrior = "isotropic"
    """Prior over latents; none for a flat policy."""
    low_level: LowLevelPrior = "shared"
    """Of a hierarchical policy: shared, the policy's own (eq. 10), which adds no KL; or separate (eq. 9).
    Of a flat one: distral, distral_two_column or distral_shared (F.2), or none (SVG-0)."""
    ar_coefficient: Annotated[float, Ge(0), Lt(1)] = 0.95
    """α of the ar1 prior."""
    high_level_sizes: Sizes = (200,)
    """Hidden layer sizes of the ar_learned prior."""
    low_level_sizes: Sizes = (200, 100)
    """Hidden layer sizes of a low level of its own; distral_shared has none beside the policy's."""


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
    """Networks of single observation groups, before a module joins all it sees."""

    boxes: Sizes = ()
    """Layer sizes of each module's box encoder (Appendix G); none: boxes are joined as they are."""


@dataclasses.dataclass(frozen=True)
class CriticConfig:
    """The critic Q(a, z, x)."""

    sizes: Sizes = (400, 300)
    """Hidden layer sizes; the first is followed by LayerNorm and tanh."""
    num_critics: Positive = 1
    """Critics learned side by side; of several (twins) the least value counts. The paper has one."""

    def __post_init__(self):
        if not self.sizes:
            raise ValueError("sizes needs at least one layer")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Everything that shapes an agent's parameters, beside the environment's specs."""

    information: Information = Information()
    policy: PolicyConfig = PolicyConfig()
    default_policy: DefaultPolicyConfig = DefaultPolicyConfig()
    critic: CriticConfig = CriticConfig()
    encoder: EncoderConfig = EncoderConfig()
    state_values: bool = False  # the critic is V(z, x) instead of Q(a, z, x); the algorithm says

    def __post_init__(self):
        high, low = self.default_policy.high_level, self.default_policy.low_level
        if self.policy.kind == "flat" and (high != "none" or low not in _FLAT):
            raise ValueError(
                'a flat policy has no latent: default_policy.high_level must be "none", and'
                f" default_policy.low_level one of {', '.join(_FLAT)}, not {high!r} and {low!r}"
            )
        if self.policy.kind == "hierarchical" and (high == "none" or low not in _HIERARCHICAL):
            raise ValueError(
                f"a latent needs a prior: default_policy.high_level must be one of {', '.join(_LATENT)}, and"
                f" default_policy.low_level one of {', '.join(_HIERARCHICAL)}, not {high!r} and {low!r}"
            )
        if self.policy.kind == "flat" and self.policy.latent_period > 1:
            raise ValueError("policy.latent_period: a flat policy has no latent to keep")
