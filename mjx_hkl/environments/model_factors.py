"""What may differ between episodes of one model: factors of its numbers, the same on every engine."""

from typing import Any

import flax.struct
import numpy as np
from jaxtyping import Array, Float

_SLIDES = np.array([1, 1, 0, 0, 0], np.float32)  # of a pair's five coefficients; the others are spin and roll


@flax.struct.dataclass
class ModelFactors:
    """Factors of a model's own numbers, constant within an episode; None: as the model says, always.

    Attributes:
      mass: of each body's mass and inertia.
      friction: of sliding friction, of all contacts alike.
      strength: of each actuator's force: of a motor, its gear; of a servo, its gains.
      damping: of each degree of freedom.
      gravity: of gravity.
    """

    mass: Float[Array, "*batch nbody"] | None = None
    friction: Float[Array, "*batch 1"] | None = None
    strength: Float[Array, "*batch nu"] | None = None
    damping: Float[Array, "*batch nv"] | None = None
    gravity: Float[Array, "*batch 1"] | None = None


def varied_fields(model: Any, factors: ModelFactors | None) -> dict[str, Any]:
    """The fields of MuJoCo's or MJX's `model` that the factors of one world change, by name, with new values.

    What MuJoCo derives from masses when it compiles (`body_invweight0` and its like, which say how soft
    a contact is) stays as it was, on every engine.
    """
    if factors is None:
        return {}
    fields = {}
    if factors.mass is not None:
        fields["body_mass"] = model.body_mass * factors.mass
        fields["body_inertia"] = model.body_inertia * factors.mass[:, None]
    if factors.friction is not None:
        fields["pair_friction"] = model.pair_friction * (1 + _SLIDES * (factors.friction - 1))
    if factors.strength is not None:
        for name in ("actuator_gainprm", "actuator_biasprm"):
            fields[name] = getattr(model, name) * factors.strength[:, None]
    if factors.damping is not None:
        fields["dof_damping"] = model.dof_damping * factors.damping
    if factors.gravity is not None:
        fields["opt.gravity"] = model.opt.gravity * factors.gravity
    return fields
