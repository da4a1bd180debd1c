"""From where pictures show an arena."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class View:
    """From where pictures show an arena.

    Attributes:
      distance: of the camera from what it looks at, metres.
      elevation: of the camera, degrees, negative from above.
      lookat: what it looks at, in the world, or from the torso where it follows; metres.
      follows: whether it moves with the torso.
      azimuth: of the camera, degrees.
    """

    distance: float
    elevation: float
    lookat: tuple[float, float, float] = (0.0, 0.0, 0.0)
    follows: bool = False
    azimuth: float = 90.0
