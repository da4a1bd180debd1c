"""MJX's Warp implementation: for NVIDIA GPUs, and for CPUs to test it; an optional extra."""

import functools
import importlib.util
from typing import Any

import jax
import mujoco
from jaxtyping import Array, Float
from mujoco import mjx

from mjx_hkl.environments.engines.mjx import data_of
from mjx_hkl.environments.physics import PhysicsState, full_precision
from mjx_hkl.errors import UserError

_GEOM = mujoco.mjtGeom
# The most contacts two geoms can have, by their types in MuJoCo's order; other pairs have one.
_CONTACTS = {
    (int(_GEOM.mjGEOM_PLANE), int(_GEOM.mjGEOM_CAPSULE)): 2,
    (int(_GEOM.mjGEOM_PLANE), int(_GEOM.mjGEOM_CYLINDER)): 4,
    (int(_GEOM.mjGEOM_PLANE), int(_GEOM.mjGEOM_BOX)): 4,
    (int(_GEOM.mjGEOM_PLANE), int(_GEOM.mjGEOM_MESH)): 4,
    (int(_GEOM.mjGEOM_CAPSULE), int(_GEOM.mjGEOM_BOX)): 2,
    (int(_GEOM.mjGEOM_BOX), int(_GEOM.mjGEOM_BOX)): 8,
}


class WarpEngine:
    """Steps all worlds of a batch in one launch, with room for the contacts of all of them."""

    name = "warp"
    not_shared = "would step all worlds on every device"

    def __init__(self, model: mujoco.MjModel, substeps: int):
        if importlib.util.find_spec("warp") is None:
            raise UserError("engine 'warp' is not installed; pip install 'mujoco-mjx[warp]'")
        if jax.default_backend() not in ("cpu", "gpu"):
            raise UserError(f"engine 'warp' runs on NVIDIA GPUs and CPUs, not on {jax.default_backend()}")
        import warp

        warp.config.log_level = warp.LOG_ERROR  # the rest would go to stdout
        self.model = model
        self.substeps = substeps
        # A few solver iterations are what we ask for, not something to print about in each step.
        self._mjx_model = mjx.put_model(model, impl="warp").tree_replace({"opt._impl.warn_overflow": 0})
        self._contacts, self._rows = _room(model)

    def step(
        self, state: PhysicsState, control: Float[Array, " nu"]
    ) -> tuple[PhysicsState, Float[Array, "substeps nq"]]:
        """See `Engine.step`."""
        one = jax.tree.map(lambda x: x[None], (state, control))
        return jax.tree.map(lambda x: x[0], self._step_of(1)(*one))

    @functools.cache  # noqa: B019 - an engine lives as long as its environment
    def _step_of(self, num_worlds: int) -> Any:
        """The step of a batch; vmapped, that of a larger one: Warp's buffers are for a whole batch."""
        with jax.ensure_compile_time_eval():  # it is kept: no part of the trace it is first asked for in
            contacts = num_worlds * self._contacts
            data = mjx.make_data(self.model, impl="warp", naconmax=contacts, njmax=self._rows)
        one = functools.partial(_scan_substeps, self._mjx_model, data, self.substeps)

        @jax.custom_batching.custom_vmap
        def step(state: PhysicsState, control: Array) -> tuple[PhysicsState, Array]:
            return jax.vmap(one)(state, control)

        @step.def_vmap
        def _(axis_size: int, in_batched: Any, *arguments: Any) -> Any:
            def flatten(x: Array, batched: bool) -> Array:
                x = x if batched else jax.numpy.broadcast_to(x, (axis_size, *x.shape))
                return x.reshape(axis_size * num_worlds, *x.shape[2:])

            out = self._step_of(axis_size * num_worlds)(*jax.tree.map(flatten, arguments, tuple(in_batched)))
            unflattened = jax.tree.map(lambda x: x.reshape(axis_size, num_worlds, *x.shape[1:]), out)
            return unflattened, jax.tree.map(lambda _: True, out)

        return step


def _scan_substeps(
    model: Any, template: Any, substeps: int, state: PhysicsState, control: Float[Array, " nu"]
) -> tuple[PhysicsState, Float[Array, "substeps nq"]]:
    """A control step of one world.

    MJX's whole data is carried: made anew in each physics step, its arrays would be filled and copied for
    each call.
    """

    def substep(data: Any, _: None) -> tuple[Any, Array]:
        data = mjx.step(model, data)
        return data, data.qpos

    with full_precision():
        data, places = jax.lax.scan(substep, data_of(template, state, control), None, length=substeps)
    return state.replace(qpos=data.qpos, qvel=data.qvel, qacc=data.qacc_warmstart), places


def _room(model: mujoco.MjModel) -> tuple[int, int]:
    """The most contacts and constraint rows a world can have."""
    contacts, rows = 0, int(model.jnt_limited.sum()) + model.neq * 6 + model.nv
    for a, b, condim in zip(model.pair_geom1, model.pair_geom2, model.pair_dim, strict=True):
        low, high = sorted((int(model.geom_type[a]), int(model.geom_type[b])))
        count = _CONTACTS.get((low, high), 1)
        contacts += count
        rows += count * max(1, 2 * (int(condim) - 1))
    return max(contacts, 1), rows
