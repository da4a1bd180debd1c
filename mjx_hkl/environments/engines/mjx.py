"""MJX's JAX implementation: runs on CPU, GPU and TPU, and never leaves the device."""

import jax
import mujoco
from jaxtyping import Array, Float
from mujoco import mjx

from mjx_hkl.environments.physics import PhysicsState


class MjxEngine:
    """Steps a model with `mjx.step`, carrying only positions, velocities and the warm start."""

    def __init__(self, model: mujoco.MjModel, substeps: int):
        self.model = model
        self._substeps = substeps
        self._mjx_model = mjx.put_model(model, impl="jax")
        self._data = mjx.make_data(model, impl="jax")

    def step(self, state: PhysicsState, control: Float[Array, " nu"]) -> PhysicsState:
        """See `Engine.step`."""

        def substep(state: PhysicsState, _: None) -> tuple[PhysicsState, None]:
            data = self._data.replace(
                qpos=state.qpos, qvel=state.qvel, qacc_warmstart=state.qacc, ctrl=control
            )
            data = mjx.step(self._mjx_model, data)
            return PhysicsState(data.qpos, data.qvel, data.qacc_warmstart), None

        return jax.lax.scan(substep, state, None, length=self._substeps)[0]
