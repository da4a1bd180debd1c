"""MJX's Warp implementation: for NVIDIA GPUs, and for CPUs to test it; an optional extra."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import mujoco
from jaxtyping import Array, Float
from mujoco import mjx

from mjx_hkl.environments.engines.mjx import data_of
from mjx_hkl.environments.model_factors import varied_fields
from mjx_hkl.environments.physics import PhysicsState, full_precision
from mjx_hkl.environments.warp import for_whole_batches, require_warp

_GEOM = mujoco.mjtGeom
# The most contacts two geoms can have, by their types in MuJoCo's order; other pairs have one.
_CONTACTS = {
    (int(_GEOM.mjGEOM_PLANE), int(_GEOM.mjGEOM_CAPSULE)): 2,
    (int(_GEOM.mjGEOM_PLANE), int(_GEOM.mjGEOM_CYLINDER)): 4,
    (int(_GEOM.mjGEOM_PLANE), int(_GEOM.mjGEOM_BOX)): 4,
    (int(_GEOM.mjGEOM_PLANE), int(_GEOM.mjGEOM_MESH)): 4,
    (int(_GEOM.mjGEOM_HFIELD), int(_GEOM.mjGEOM_SPHERE)): 4,
    (int(_GEOM.mjGEOM_HFIELD), int(_GEOM.mjGEOM_CAPSULE)): 4,
    (int(_GEOM.mjGEOM_HFIELD), int(_GEOM.mjGEOM_BOX)): 4,
    (int(_GEOM.mjGEOM_HFIELD), int(_GEOM.mjGEOM_MESH)): 4,
    (int(_GEOM.mjGEOM_CAPSULE), int(_GEOM.mjGEOM_BOX)): 2,
    (int(_GEOM.mjGEOM_BOX), int(_GEOM.mjGEOM_BOX)): 8,
}


class WarpEngine:
    """Steps all worlds of a batch in one launch, with room for the contacts of all of them."""

    name = "warp"
    not_shared = "would step all worlds on every device"

    def __init__(self, model: mujoco.MjModel, substeps: int):
        require_warp("engine")
        self.model = model
        self.substeps = substeps
        # A few solver iterations are what we ask for, not something to print about in each step.
        self._mjx_model = mjx.put_model(model, impl="warp").tree_replace({"opt._impl.warn_overflow": 0})
        self._contacts, self._rows = _room(model)
        self._step = for_whole_batches(self._steps_of)

    def step(
        self, state: PhysicsState, control: Float[Array, " nu"]
    ) -> tuple[PhysicsState, Float[Array, "substeps nq"]]:
        """See `Engine.step`."""
        return self._step(state, control)

    def _steps_of(self, num_worlds: int) -> Callable[..., Any]:
        data = mjx.make_data(self.model, impl="warp", naconmax=num_worlds * self._contacts, njmax=self._rows)
        return jax.vmap(functools.partial(_scan_substeps, self._mjx_model, data, self.substeps))


def _scan_substeps(
    model: Any, template: Any, substeps: int, state: PhysicsState, control: Float[Array, " nu"]
) -> tuple[PhysicsState, Float[Array, "substeps nq"]]:
    """A control step of one world.

    MJX's whole data is carried: made anew in each physics step, its arrays would be filled and copied for
    each call.
    """
    model = model.tree_replace(varied_fields(model, state.factors))

    def substep(data: Any, _: None) -> tuple[Any, Array]:
        data = mjx.step(model, data)
        return data, data.qpos

    with full_precision():
        data, places = jax.lax.scan(substep, data_of(template, state, control), None, length=substeps)
    return state.replace(qpos=data.qpos, qvel=data.qvel, qacc=data.qacc_warmstart), places


def _room(model: mujoco.MjModel) -> tuple[int, int]:
    """The most contacts and constraint rows a world can have."""
    contacts, rows = 0, int(model.jnt_limited.sum()) + model.neq * 6 + model.nv + 2 * model.ntendon
    for a, b, condim in zip(model.pair_geom1, model.pair_geom2, model.pair_dim, strict=True):
        low, high = sorted((int(model.geom_type[a]), int(model.geom_type[b])))
        count = _CONTACTS.get((low, high), 1)
        contacts += count
        rows += count * max(1, 2 * (int(condim) - 1))
    return max(contacts, 1), rows
