"""Types of the numbers in environment files.

Bounds keep out what no machine can hold, and what float32 cannot tell from 0 or from infinity.
"""

from typing import Annotated, Any

from annotated_types import Ge, Gt, Le
from pydantic import AllowInfNan


def rising(bounds: tuple[Any, Any]) -> tuple[Any, Any]:
    """A validator of a least and a greatest."""
    if bounds[0] > bounds[1]:
        raise ValueError(f"the least comes first, and {bounds[0]} is more than {bounds[1]}")
    return bounds


Things = Annotated[int, Gt(0), Le(64)]
"""Targets or boxes; each keeps its distance from every other."""
Repeats = Annotated[int, Gt(0), Le(1000)]
"""Substeps of a control step, iterations of a solver, cells of a grid."""
Steps = Annotated[int, Gt(0), Le(10**9)]
"""Control steps of an episode."""
Seconds = Annotated[float, Ge(1e-5), Le(1.0), AllowInfNan(False)]
"""Of a physics step."""
Metres = Annotated[float, Ge(1e-4), Le(1000.0), AllowInfNan(False)]
"""A length."""
Distance = Annotated[float, Ge(0.0), Le(1000.0), AllowInfNan(False)]
"""Metres to keep away, also none."""
Coordinate = Annotated[float, Ge(-1000.0), Le(1000.0), AllowInfNan(False)]
"""Metres, on either side of the origin."""
Amount = Annotated[float, Ge(1e-6), Le(1e6), AllowInfNan(False)]
"""A reward, a unit, a ratio, a speed: more than none."""
Rate = Annotated[float, Ge(0.0), Le(1e6), AllowInfNan(False)]
"""A cost or a damping, also none."""
