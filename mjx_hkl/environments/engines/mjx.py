"""MJX's JAX implementation: runs on CPU, GPU and TPU, and never leaves the device."""

from typing import Any

import jax
import mujoco
from jaxtyping import Array, Float
from mujoco import mjx

from mjx_hkl.environments.physics import PhysicsState, full_precision


class MjxEngine:
    """Steps a model with `mjx.step`, carrying only positions, velocities and the warm start."""

    name = "mjx"
    not_shared = ""

    def __init__(self, model: mujoco.MjModel, substeps: int):
        self.model = model
        self.substeps = substeps
        self._mjx_model = mjx.put_model(model, impl="jax")
        self._data = mjx.make_data(model, impl="jax")

    def step(
        self, state: PhysicsState, control: Float[Array, " nu"]
    ) -> tuple[PhysicsState, Float[Array, "substeps nq"]]:
        """See `Engine.step`."""
        return scan_substeps(self._mjx_model, self._data, self.substeps, state, control)


def data_of(template: Any, state: PhysicsState, control: Float[Array, " nu"]) -> Any:
    """MJX's data of a state under a control; all else is the template's."""
    return template.replace(
        qpos=state.qpos,
        qvel=state.qvel,
        qacc_warmstart=state.qacc,
        mocap_pos=state.mocap_pos,
        ctrl=control,
    )


def scan_substeps(
    model: Any, template: Any, substeps: int, state: PhysicsState, control: Float[Array, " nu"]
) -> tuple[PhysicsState, Float[Array, "substeps nq"]]:
    """A control step by `mjx.step` of an MJX model; what `template` holds beside the state is derived."""

    def substep(state: PhysicsState, _: None) -> tuple[PhysicsState, Array]:
        data = mjx.step(model, data_of(template, state, control))
        state = state.replace(qpos=data.qpos, qvel=data.qvel, qacc=data.qacc_warmstart)
        return state, data.qpos

    with full_precision():
        return jax.lax.scan(substep, state, None, length=substeps)
