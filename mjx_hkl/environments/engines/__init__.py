"""Physics engines by name: the same model and state, advanced by different simulators."""

import jax
import mujoco

from mjx_hkl.environments.engines.mjx import MjxEngine
from mjx_hkl.environments.engines.rollout import MujocoEngine
from mjx_hkl.environments.engines.warp import WarpEngine
from mjx_hkl.environments.physics import Engine
from mjx_hkl.errors import UserError, unknown_name

ENGINES = {"mjx": MjxEngine, "mujoco": MujocoEngine, "warp": WarpEngine}


def default_engine() -> str:
    """What `auto` is on this machine."""
    return "mujoco" if jax.default_backend() == "cpu" else "mjx"


def make_engine(name: str, model: mujoco.MjModel, substeps: int) -> Engine:
    """The engine of that name for a compiled model; `auto`: C MuJoCo on a CPU, MJX on an accelerator.

    Raises:
      UserError: no such engine, or it is not installed, or cannot simulate the model.
    """
    if name == "auto":
        name = default_engine()
    if name not in ENGINES:
        raise unknown_name("engine", name, [*ENGINES, "auto"])
    try:
        return ENGINES[name](model, substeps)
    except NotImplementedError as error:
        raise UserError(f"engine {name!r} cannot simulate the world: {error}") from error
