"""MJX's JAX implementation: runs on CPU, GPU and TPU, and never leaves the device."""

from typing import Any

import jax
import mujoco
from jaxtyping import Array, Float
from mujoco import mjx

from mjx_hkl.environments.engines.loops import with_known_rounds
from mjx_hkl.environments.model_factors import varied_fields
from mjx_hkl.environments.physics import PhysicsState, full_precision

_FEW = 4  # iterations of the solver that are run all rather than asked about


class MjxEngine:
    """Steps a model with `mjx.step`, carrying only positions, velocities and the warm start."""

    name = "mjx"
    not_shared = ""

    def __init__(self, model: mujoco.MjModel, substeps: int):
        self.model = model
        self.substeps = substeps
        self._data = mjx.make_data(model, impl="jax")
        self._model = mjx.put_model(model, impl="jax")
        # MJX's solver ends when no world needs it, which an accelerator tells the host after each iteration,
        # and each device all others. Of thousands of worlds some always need the few that there are.
        few = model.opt.iterations <= _FEW
        self._step = with_known_rounds(self._varied_step, model.opt.iterations) if few else self._varied_step

    def step(
        self, state: PhysicsState, control: Float[Array, " nu"]
    ) -> tuple[PhysicsState, Float[Array, "substeps nq"]]:
        """See `Engine.step`."""
        fields = varied_fields(self._model, state.factors)

        def substep(state: PhysicsState, _: None) -> tuple[PhysicsState, Array]:
            data = self._step((fields, data_of(self._data, state, control)))
            state = state.replace(qpos=data.qpos, qvel=data.qvel, qacc=data.qacc_warmstart)
            return state, data.qpos

        with full_precision():
            return jax.lax.scan(substep, state, None, length=self.substeps)

    def _varied_step(self, given: tuple[dict[str, Any], Any]) -> Any:
        """The data after a physics step, of the model with these fields."""
        fields, data = given
        return mjx.step(self._model.tree_replace(fields), data)


def data_of(template: Any, state: PhysicsState, control: Float[Array, " nu"]) -> Any:
    """MJX's data of a state under a control; all else is the template's."""
    return template.replace(
        qpos=state.qpos,
        qvel=state.qvel,
        qacc_warmstart=state.qacc,
        mocap_pos=state.mocap_pos,
        ctrl=control,
    )
