"""Physics engines by name: the same model and state, advanced by different simulators."""

import mujoco

from mjx_hkl.environments.engines.mjx import MjxEngine
from mjx_hkl.environments.physics import Engine
from mjx_hkl.errors import unknown_name

ENGINES = {"mjx": MjxEngine}


def make_engine(name: str, model: mujoco.MjModel, substeps: int) -> Engine:
    """The engine of that name (`auto`: the best one for the device) for a compiled model.

    Raises:
      UserError: no such engine.
    """
    name = "mjx" if name == "auto" else name
    if name not in ENGINES:
        raise unknown_name("engine", name, [*ENGINES, "auto"])
    return ENGINES[name](model, substeps)
