"""OpenGL without a display; imports nothing, because MuJoCo chooses when it is imported."""

import os
import subprocess
import sys

from mjx_hkl.errors import UserError


def choose_opengl() -> None:
    """Sets MUJOCO_GL, which MuJoCo reads when imported, to the first backend that works without a display.

    Raises:
      UserError: there is none.
    """
    if "MUJOCO_GL" in os.environ or sys.platform != "linux":
        return
    probe = "import mujoco; mujoco.GLContext(8, 8).make_current()"
    for backend in ("egl", "osmesa"):
        environment = {**os.environ, "MUJOCO_GL": backend}
        done = subprocess.run([sys.executable, "-c", probe], env=environment, capture_output=True)
        if done.returncode == 0:
            os.environ["MUJOCO_GL"] = backend
            return
    raise UserError("rendering needs OpenGL without a display: install EGL (libegl1) or OSMesa (libosmesa6)")
