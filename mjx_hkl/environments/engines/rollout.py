"""C MuJoCo's threaded rollout, called from inside the jitted step: for machines without an accelerator."""

import hashlib
import os
import threading
from typing import Any

import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float
from mujoco import rollout

from mjx_hkl.environments.engines.host_call import host_call
from mjx_hkl.environments.physics import PhysicsState, no_log_file

_STATE = mujoco.mjtState


class MujocoEngine:
    """Steps all worlds of a batch on all cores, in double precision.

    A world's step does not depend on which others are in its batch, nor on the thread that makes it.
    """

    name = "mujoco"
    not_shared = "runs on the host"

    def __init__(self, model: mujoco.MjModel, substeps: int):
        self.model = model
        self.substeps = substeps
        # A state that is not finite must stay so, to be counted as a fault: MuJoCo would reset it silently.
        model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._data = [mujoco.MjData(model) for _ in range(threads)]
        self._pool = rollout.Rollout(nthread=threads)
        self._lock = threading.Lock()  # one batch at a time: the threads' data are shared
        self._key = f"mujoco_{_digest(model)}_{substeps}"

    def step(
        self, state: PhysicsState, control: Float[Array, " nu"]
    ) -> tuple[PhysicsState, Float[Array, "substeps nq"]]:
        """See `Engine.step`."""
        # One array each way: every array that crosses costs a copy.
        given = (state.qpos, state.qvel, state.qacc, control, state.mocap_pos.ravel())
        nq, nv = self.model.nq, self.model.nv
        size = self.substeps * nq + 2 * nv
        result = host_call(self._key, self._rollout, jnp.concatenate(given), size)
        qpos, qvel, qacc = jnp.split(result, (self.substeps * nq, self.substeps * nq + nv))
        qpos = qpos.reshape(self.substeps, nq)
        return state.replace(qpos=qpos[-1], qvel=qvel, qacc=qacc), qpos

    def _rollout(self, given: np.ndarray) -> np.ndarray:
        """Any number of leading batch axes in, the same out."""
        nq, nv = self.model.nq, self.model.nv
        flat = np.asarray(given, np.float64).reshape(-1, given.shape[-1])
        qpos, qvel, qacc, inputs = np.split(flat, (nq, nq + nv, nq + 2 * nv), axis=1)
        with self._lock, no_log_file():
            states: Any
            states, _ = self._pool.rollout(
                self.model,
                self._data,
                np.concatenate([np.zeros((len(flat), 1)), qpos, qvel], axis=1),  # time comes first
                inputs[:, None],
                control_spec=_STATE.mjSTATE_CTRL | _STATE.mjSTATE_MOCAP_POS,
                nstep=self.substeps,
                initial_warmstart=qacc,
            )
        positions = states[:, :, 1 : 1 + nq].reshape(len(flat), -1)
        velocities = states[:, :, 1 + nq : 1 + nq + nv]
        before = velocities[:, -2] if self.substeps > 1 else qvel
        # Semi-implicit Euler: what the velocity gained in the last step is its acceleration.
        acceleration = (velocities[:, -1] - before) / self.model.opt.timestep
        result = np.concatenate([positions, velocities[:, -1], acceleration], axis=1, dtype=np.float32)
        return result.reshape(*given.shape[:-1], -1)


def _digest(model: mujoco.MjModel) -> str:
    """Equal for equal models, in all processes."""
    buffer = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, buffer)
    return hashlib.sha256(buffer.tobytes()).hexdigest()[:16]
