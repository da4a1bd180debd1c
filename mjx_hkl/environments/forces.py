"""What actuators exert, from positions and velocities alone."""

import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float

from mjx_hkl.environments.physics import PhysicsState, Servos, control_of
from mjx_hkl.errors import UserError


class Forces:
    """Actuator forces of one model, as MuJoCo's `actuator_force`.

    A force is gain · control + bias₀ + bias₁ · length + bias₂ · velocity, within the actuator's `forcerange`;
    length and velocity are those of its joint times its gear.
    """

    def __init__(self, model: mujoco.MjModel, servos: Servos | None = None):
        self._to_control = control_of(model, servos)
        self._gain, self._bias = model.actuator_gainprm, model.actuator_biasprm
        self._gear = model.actuator_gear[:, 0]
        self._range = np.where(
            model.actuator_forcelimited[:, None], model.actuator_forcerange, (-np.inf, np.inf)
        ).T
        on_joint = model.actuator_trntype == mujoco.mjtTrn.mjTRN_JOINT
        joints = np.where(on_joint, model.actuator_trnid[:, 0], 0)
        hinges = np.isin(model.jnt_type[joints], (mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE))
        self._qpos, self._qvel = model.jnt_qposadr[joints], model.jnt_dofadr[joints]
        fixed = model.actuator_gaintype == mujoco.mjtGain.mjGAIN_FIXED
        has_bias = model.actuator_biastype != mujoco.mjtBias.mjBIAS_NONE
        affine = model.actuator_biastype == mujoco.mjtBias.mjBIAS_AFFINE
        self._has_bias = has_bias
        self._elsewhere = [model.actuator(int(i)).name for i in np.flatnonzero(~(on_joint & hinges))]
        known = fixed & (~has_bias | affine & on_joint & hinges)
        self._unknown = [model.actuator(int(i)).name for i in np.flatnonzero(~known)]

    def velocities(self, state: PhysicsState) -> Float[Array, " nu"]:
        """Of each actuator, as MuJoCo's `actuator_velocity`.

        Raises:
          UserError: an actuator acts on something else than a hinge or a slide.
        """
        if self._elsewhere:
            raise UserError(f"actuator {self._elsewhere[0]!r} moves no joint: its velocity is not known here")
        return self._gear * state.qvel[self._qvel]

    def __call__(self, state: PhysicsState, action: Float[Array, " nu"]) -> Float[Array, " nu"]:
        """Of an action in [-1, 1] in this state, N or N·m.

        Raises:
          UserError: an actuator's force depends on more than its control and one hinge or slide.
        """
        if self._unknown:
            raise UserError(
                f"the force of actuator {self._unknown[0]!r} depends on more than its control and one joint,"
                " and is not known here"
            )
        length, velocity = self._gear * state.qpos[self._qpos], self._gear * state.qvel[self._qvel]
        bias = self._bias[:, 0] + self._bias[:, 1] * length + self._bias[:, 2] * velocity
        force = self._gain[:, 0] * self._to_control(action) + jnp.where(self._has_bias, bias, 0.0)
        if state.factors is not None and state.factors.strength is not None:
            force = force * state.factors.strength
        return jnp.clip(force, *self._range)
