"""C MuJoCo's threaded rollout, called from inside the jitted step: for machines without an accelerator."""

import copy
import functools
import hashlib
import operator
import os
import threading

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float
from mujoco import rollout

from mjx_hkl.environments.engines.host_call import host_call
from mjx_hkl.environments.model_factors import ModelFactors, varied_fields
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
        name, models = self._key, None
        if state.factors is not None:
            models = _Models(self.model, state.factors)
            name = "_".join([name, *(key for key, x in vars(state.factors).items() if x is not None)])
            given += tuple(jax.tree.leaves(state.factors))
        run = functools.partial(self._rollout, models)
        result = host_call(name, run, jnp.concatenate(given), size)
        qpos, qvel, qacc = jnp.split(result, (self.substeps * nq, self.substeps * nq + nv))
        qpos = qpos.reshape(self.substeps, nq)
        return state.replace(qpos=qpos[-1], qvel=qvel, qacc=qacc), qpos

    def _rollout(self, models: "_Models | None", given: np.ndarray) -> np.ndarray:
        """Any number of leading batch axes in, the same out."""
        nq, nv = self.model.nq, self.model.nv
        flat = np.asarray(given, np.float64).reshape(-1, given.shape[-1])
        flat, factors = np.split(flat, (flat.shape[1] - (models.width if models else 0),), axis=1)
        qpos, qvel, qacc, inputs = np.split(flat, (nq, nq + nv, nq + 2 * nv), axis=1)
        count, steps = len(flat), self.substeps
        states = np.empty((count, steps, 1 + nq + nv))
        with self._lock, no_log_file():
            self._pool.rollout(
                models.of(factors) if models else [self.model] * count,
                self._data,
                np.concatenate([np.zeros((count, 1)), qpos, qvel], axis=1),  # time comes first
                np.repeat(inputs[:, None], steps, axis=1),
                control_spec=int(_STATE.mjSTATE_CTRL | _STATE.mjSTATE_MOCAP_POS),
                skip_checks=True,  # which take longer than a step of many models
                nstep=steps,
                initial_warmstart=np.ascontiguousarray(qacc),
                state=states,
                sensordata=np.empty((count, steps, self.model.nsensordata)),
            )
        positions = states[:, :, 1 : 1 + nq].reshape(len(flat), -1)
        velocities = states[:, :, 1 + nq : 1 + nq + nv]
        before = velocities[:, -2] if self.substeps > 1 else qvel
        # Semi-implicit Euler: what the velocity gained in the last step is its acceleration.
        acceleration = (velocities[:, -1] - before) / self.model.opt.timestep
        result = np.concatenate([positions, velocities[:, -1], acceleration], axis=1, dtype=np.float32)
        return result.reshape(*given.shape[:-1], -1)


class _Models:
    """A model for each world of a batch, written to only where an episode has begun."""

    def __init__(self, model: mujoco.MjModel, factors: ModelFactors):
        """Of worlds that have such factors."""
        leaves, self._structure = jax.tree.flatten(factors)
        self._ends = np.cumsum([x.size for x in leaves])
        self.width: int = self._ends[-1]
        self._model, self._below = model, _below(model)
        self._copies: list[mujoco.MjModel] = []
        self._written = np.empty((0, self.width))

    def of(self, factors: Float[np.ndarray, "worlds width"]) -> list[mujoco.MjModel]:
        """Those of the factors in each row."""
        count = len(factors)
        while len(self._copies) < count:
            self._copies.append(copy.copy(self._model))
            self._written = np.append(self._written, np.full((1, self.width), np.nan), axis=0)
        for world in np.flatnonzero((self._written[:count] != factors).any(1)):
            self._write(self._copies[world], factors[world])
            self._written[world] = factors[world]
        return self._copies[:count]

    def _write(self, model: mujoco.MjModel, factors: Float[np.ndarray, " width"]) -> None:
        leaves = np.split(factors, self._ends[:-1])
        for name, value in varied_fields(self._model, self._structure.unflatten(leaves)).items():
            operator.attrgetter(name)(model)[:] = value
        model.body_subtreemass[:] = self._below @ model.body_mass


def _below(model: mujoco.MjModel) -> Float[np.ndarray, "nbody nbody"]:
    """1 where a body (column) is another one (row), or hangs from it."""
    below = np.eye(model.nbody)
    for body in range(model.nbody - 1, 0, -1):
        below[model.body_parentid[body]] += below[body]
    return below


def _digest(model: mujoco.MjModel) -> str:
    """Equal for equal models, in all processes."""
    buffer = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, buffer)
    return hashlib.sha256(buffer.tobytes()).hexdigest()[:16]
