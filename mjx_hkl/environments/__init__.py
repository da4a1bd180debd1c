"""The worlds: bodies, arenas, tasks, physics engines, and many of them at once."""

import contextlib
import io

# mujoco.mjx prints to stdout where the optional warp is absent; stdout belongs to --json.
with contextlib.redirect_stdout(io.StringIO()):
    import mujoco.mjx  # noqa: F401

from mjx_hkl.environments.composition import EnvironmentConfig, load_environment
from mjx_hkl.environments.vectorized import Timestep, VectorEnvironment, VectorState
from mjx_hkl.environments.world import World

__all__ = [
    "EnvironmentConfig",
    "Timestep",
    "VectorEnvironment",
    "VectorState",
    "World",
    "load_environment",
]
