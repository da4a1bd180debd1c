"""The tables of a recipe that say what is learned: kinds, sizes, and who sees what."""

import dataclasses
from collections.abc import Iterable
from typing import Annotated, Literal

from mjx_hkl.errors import UserError, unknown_name
from mjx_hkl.models.critics import CRITICS, CriticFields, MLPCriticFields
from mjx_hkl.models.default_low_levels import DEFAULT_LOW_LEVELS, DefaultLowLevelFields, Shared
from mjx_hkl.models.encoders import ENCODERS, EncoderFields
from mjx_hkl.models.high_levels import HIGH_LEVELS, HighLevelFields, MLPHighLevelFields
from mjx_hkl.models.low_levels import LOW_LEVELS, LowLevelFields, MLPLowLevelFields
from mjx_hkl.models.priors import PRIORS, Isotropic, Posterior, PriorFields

Encoders = dict[str, Annotated[EncoderFields, ENCODERS]]


@dataclasses.dataclass(frozen=True)
class Information:
    """Which observation groups each module sees (§3.1, Table 1); empty: what suits the world."""

    high_level: tuple[str, ...] = ()
    """The high level; by default all groups but those called privileged."""
    low_level: tuple[str, ...] = ()
    """The low level; by default what the environment's file says; of a flat policy what a high level sees."""
    critic: tuple[str, ...] = ()
    """The critic; by default everything."""
    default: tuple[str, ...] = ()
    """The low level of the default policy, where it has its own, and the posterior; by default what the low
    level of a hierarchical policy sees, which hides the task."""

    def is_seen(self, group: str) -> bool:
        """Whether some module sees it."""
        return any(group in seen for seen in dataclasses.astuple(self))

    def check(self, groups: Iterable[str]) -> None:
        """Raises UserError where a module is given a group the world does not have."""
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
    """The policy π: a high level over latents, a low level over actions; flat without a high level."""

    high_level: Annotated[HighLevelFields, HIGH_LEVELS] = MLPHighLevelFields()
    low_level: Annotated[LowLevelFields, LOW_LEVELS] = MLPLowLevelFields()
    actions: Literal["auto", "gaussian", "categorical"] = "auto"
    """Distribution of actions; auto is what suits the world."""

    @property
    def latent_size(self) -> int:
        """Size of z; 0 for a flat policy."""
        return self.high_level.latent_size

    @property
    def is_flat(self) -> bool:
        """Whether there is no latent."""
        return not self.latent_size


@dataclasses.dataclass(frozen=True)
class DefaultPolicyConfig:
    """The default policy π0 (§3.1, F.2)."""

    high_level: Annotated[PriorFields, PRIORS] = Isotropic()
    low_level: Annotated[DefaultLowLevelFields, DEFAULT_LOW_LEVELS] = Shared()


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Everything that shapes an agent's parameters, beside the world's specs."""

    information: Information = Information()
    policy: PolicyConfig = PolicyConfig()
    default_policy: DefaultPolicyConfig = DefaultPolicyConfig()
    critic: Annotated[CriticFields, CRITICS] = MLPCriticFields()
    encoders: Encoders = dataclasses.field(default_factory=dict)
    state_values: bool = False  # the critic is V(z, x) instead of Q(a, z, x); the algorithm says
    acts_in_latents: bool = False  # it is Q(z, x); likewise

    def takes(self, group: str) -> bool:
        """Whether some module sees the group, or a shared encoder is made for it."""
        return self.information.is_seen(group) or (group in self.encoders and self.encoders[group].shared)

    def __post_init__(self):
        default = self.default_policy
        if isinstance(default.high_level, Posterior) and default.low_level.flat is False:
            name = DEFAULT_LOW_LEVELS.name_of(default.low_level)
            raise ValueError(
                "default_policy.high_level posterior pays for actions that the default policy does not expect"
                f" without the latent (eq. 16), and low_level {name!r} sees the latent; one of feed_forward,"
                " lstm, latent_variable does not"
            )
        policy = "a flat policy" if self.policy.is_flat else "a policy with a latent"
        for name, kinds in (("high_level", PRIORS), ("low_level", DEFAULT_LOW_LEVELS)):
            chosen = getattr(self.default_policy, name)
            if chosen.flat is None or chosen.flat == self.policy.is_flat:
                continue
            suits = [kind for kind, cls in kinds.known.items() if cls.flat in (None, self.policy.is_flat)]
            raise ValueError(
                f"default_policy.{name} {kinds.name_of(chosen)!r} does not suit {policy}; one of"
                f" {', '.join(suits)} does"
            )
