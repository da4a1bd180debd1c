"""Low levels of the default policy π0^L (§3.1, F.2): kinds of a recipe's `[default_policy.low_level]`."""

import dataclasses
from typing import Any, ClassVar

from jax import lax
from jaxtyping import Array, Float

from mjx_hkl.config import Sizes
from mjx_hkl.errors import UserError
from mjx_hkl.kinds import Kinds
from mjx_hkl.models.default_base import DefaultLowLevel, DefaultLowLevelFields
from mjx_hkl.models.high_levels import ScaleRange, require_range
from mjx_hkl.models.low_levels import MLPLowLevel
from mjx_hkl.models.marginal_defaults import LSTM, FeedForward, LatentVariable
from mjx_hkl.models.modules import Distribution, Observation, Place
from mjx_hkl.models.networks import action_head


@dataclasses.dataclass(frozen=True)
class Shared(DefaultLowLevelFields):
    """The policy's own low level (eq. 10), so there is no KL between the two."""

    flat: ClassVar[bool | None] = False

    def build(self, place: Place, low_level: Any) -> "DefaultLowLevel":
        """See `DefaultLowLevelFields.build`."""
        return SharedLowLevel()


@dataclasses.dataclass(frozen=True)
class NoDefault(DefaultLowLevelFields):
    """No default low level; with a flat policy this is SVG-0."""

    flat: ClassVar[bool | None] = True

    def build(self, place: Place, low_level: Any) -> "DefaultLowLevel":
        """See `DefaultLowLevelFields.build`."""
        return DefaultLowLevel()


@dataclasses.dataclass(frozen=True)
class Separate(DefaultLowLevelFields):
    """A network of its own that sees less than the policy (eq. 9)."""

    flat: ClassVar[bool | None] = False
    sizes: Sizes = (200, 100)
    """Hidden layer sizes."""
    scale: ScaleRange = (0.05, 1.0)
    """Least and greatest standard deviation of an action."""

    def __post_init__(self):
        require_range(*self.scale)

    def build(self, place: Place, low_level: Any) -> "DefaultLowLevel":
        """See `DefaultLowLevelFields.build`."""
        return OwnLowLevel(place, self.sizes, self.scale)


@dataclasses.dataclass(frozen=True)
class Distral(Separate):
    """A network of its own for a flat policy: DISTRAL. It does not see the task (F.2)."""

    flat: ClassVar[bool | None] = True


@dataclasses.dataclass(frozen=True)
class DistralTwoColumn(Distral):
    """DISTRAL with two columns: the policy adds its outputs to this network's, before tanh (F.2)."""

    def build(self, place: Place, low_level: Any) -> "DefaultLowLevel":
        """See `DefaultLowLevelFields.build`."""
        _require(low_level, "features", "head.linear", "head.bounded")
        return ColumnLowLevel(place, self.sizes, self.scale)


@dataclasses.dataclass(frozen=True)
class DistralShared(DefaultLowLevelFields):
    """A branch on the policy's last features; its loss does not move these features (F.2).

    The target default policy is the branch's target on the features as they are now.
    """

    flat: ClassVar[bool | None] = True
    scale: ScaleRange = (0.05, 1.0)
    """Least and greatest standard deviation of an action."""

    def __post_init__(self):
        require_range(*self.scale)

    def build(self, place: Place, low_level: Any) -> "DefaultLowLevel":
        """See `DefaultLowLevelFields.build`."""
        _require(low_level, "features", "torso.size")
        return BranchLowLevel(place, low_level, self.scale)


def _require(low_level: Any, *attributes: str) -> None:
    """Raises UserError where the policy's low level lacks what DISTRAL asks it for."""
    lacks = next((name for name in attributes if not _has(low_level, name)), "")
    if low_level.remembers or lacks:
        raise UserError(
            "[default_policy.low_level] needs a policy.low_level that has features and remembers nothing;"
            f" {type(low_level).__name__} {f'has no {lacks} and ' if lacks else ''}cannot be used: choose"
            " distral or none"
        )


def _has(thing: Any, path: str) -> bool:
    for name in path.split("."):
        thing = getattr(thing, name, None)
    return thing is not None


DEFAULT_LOW_LEVELS = Kinds(
    "[default_policy.low_level]",
    {
        "shared": Shared,
        "none": NoDefault,
        "separate": Separate,
        "distral": Distral,
        "distral_two_column": DistralTwoColumn,
        "distral_shared": DistralShared,
        "feed_forward": FeedForward,
        "lstm": LSTM,
        "latent_variable": LatentVariable,
    },
    default="shared",
    base=DefaultLowLevelFields,
)


class SharedLowLevel(DefaultLowLevel):
    """The policy's own low level, under another name."""

    stands_for = "policy.low_level"


class OwnLowLevel(DefaultLowLevel, MLPLowLevel):
    """A network of its own."""

    adds_kl = True

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride] - what a default low level is called with
        self, low_level: Any, observation: Observation, latent: Float[Array, "*batch latent"]
    ) -> Distribution:
        """See `DefaultLowLevel`."""
        return self.head(self.features(observation, latent))


class ColumnLowLevel(OwnLowLevel):
    """A network of its own that is a part of the policy too."""

    def policy_action(
        self, low_level: Any, memory: Any, observation: Observation, latent: Float[Array, "*batch latent"]
    ) -> tuple[Any, Distribution]:
        """See `DefaultLowLevel`: both columns' outputs are added before tanh and bounds."""
        own = low_level.head.linear(low_level.features(observation, latent))
        column = self.head.linear(self.features(observation, latent))
        return memory, low_level.head.bounded(own + column)


class BranchLowLevel(DefaultLowLevel):
    """A head on the features of the policy's low level."""

    adds_kl = True
    bound_to_body = True
    sees = ("features of policy.low_level",)

    def __init__(self, place: Place, low_level: Any, scale: tuple[float, float]):
        self.head = action_head(low_level.torso.size, place, scale)
        self.scale = scale

    def __call__(
        self, low_level: Any, observation: Observation, latent: Float[Array, "*batch latent"]
    ) -> Distribution:
        """See `DefaultLowLevel`."""
        return self.head(lax.stop_gradient(low_level.features(observation, latent)))

    def fits(self) -> dict[str, Any]:
        """See `Module.fits`."""
        return {"range of scales": self.scale}
