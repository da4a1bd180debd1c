"""What every physics engine shares: the state that is carried between control steps, and the interface."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Literal, Protocol

import flax.struct
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from jaxtyping import Array, Float, Int

from mjx_hkl.environments.model_factors import ModelFactors
from mjx_hkl.environments.numbers import Amount, Repeats, Seconds

# A context. TF32 would corrupt the constraint solve and the observations on recent GPUs.
full_precision = functools.partial(jax.default_matmul_precision, "highest")


@dataclasses.dataclass(frozen=True)
class PhysicsConfig:
    """The `[physics]` table of an environment file."""

    timestep: Seconds = 0.005  # seconds per physics step
    substeps: Repeats = 5  # physics steps per control step
    solver: Literal["newton", "cg"] = "newton"  # of MuJoCo, for constraints
    iterations: Repeats = 2  # of the solver in a physics step, at most
    ls_iterations: Repeats = 4  # of its line search, at most
    eulerdamp: bool = False  # integrate joint damping implicitly
    max_velocity: Amount = 1000.0  # generalized; beyond it the state is a simulator fault


@flax.struct.dataclass
class PhysicsState:
    """All that a control step needs of the one before; everything else is derived from it.

    Attributes:
      qpos: generalized positions, metres and radians.
      qvel: generalized velocities, per second.
      qacc: generalized accelerations of the last physics step; the solver's warm start.
      mocap_pos: where the model's mocap bodies are, metres; constant within an episode.
      factors: of the model's numbers in this episode; None where no episode differs from the model.
    """

    qpos: Float[Array, "*batch nq"]
    qvel: Float[Array, "*batch nv"]
    qacc: Float[Array, "*batch nv"]
    mocap_pos: Float[Array, "*batch nmocap 3"]
    factors: ModelFactors | None = None


class Engine(Protocol):
    """Advances one world. Pure and unbatched: made to be vmapped."""

    name: str
    not_shared: str  # why several devices cannot share its worlds; empty where they can
    model: mujoco.MjModel
    substeps: int  # physics steps of a control step

    def step(
        self, state: PhysicsState, control: Float[Array, " nu"]
    ) -> tuple[PhysicsState, Float[Array, "substeps nq"]]:
        """One control step: `substeps` physics steps under constant control, and `qpos` after each."""
        ...


@contextlib.contextmanager
def no_log_file() -> Iterator[None]:
    """MuJoCo says nothing: it would print its warnings and append each to a file in this folder."""
    before = mujoco.get_mju_user_warning()
    mujoco.set_mju_user_warning(lambda message: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(before)


@dataclasses.dataclass(frozen=True)
class Servos:
    """Position actuators, and what an action means to them.

    Attributes:
      numbers: of these actuators.
      centre: their controls at action 0, within their ranges.
      scale: how far from there an action of 1 moves them, radians or metres; None: to the end of their range.
    """

    numbers: Int[np.ndarray, " servos"]
    centre: Float[np.ndarray, " servos"]
    scale: float | None = None


def servos_of(model: mujoco.MjModel) -> Int[np.ndarray, " servos"]:
    """The numbers of the actuators that hold a hinge or slide where their control says."""
    holds = (model.actuator_biastype == mujoco.mjtBias.mjBIAS_AFFINE) & (model.actuator_biasprm[:, 1] != 0)
    return np.flatnonzero(holds & (model.actuator_trntype == mujoco.mjtTrn.mjTRN_JOINT))


def spans_of(
    model: mujoco.MjModel, servos: Servos | None = None
) -> tuple[Float[np.ndarray, " nu"], Float[np.ndarray, " nu"], Float[np.ndarray, " nu"]]:
    """Controls at action 0, and how far actions of -1 and of 1 move them from there, before ranges clip them.

    An action spans the range of each actuator that has one; of others it is the control. At action 0 the
    servos have their centre; the way from there to either end may be of different length.
    """
    limited = model.actuator_ctrllimited > 0
    low, high = np.where(limited[:, None], model.actuator_ctrlrange, (-1.0, 1.0)).T
    centre = (high + low) / 2
    if servos is None or not len(servos.numbers):
        return centre, (high - low) / 2, (high - low) / 2
    own = servos.numbers
    centre[own] = np.where(limited[own], np.clip(servos.centre, low[own], high[own]), servos.centre)
    # Without limits an action is the distance itself.
    below, above = np.where(limited, (centre - low, high - centre), 1.0)
    if servos.scale is not None:
        below[own] = above[own] = servos.scale
    return centre, below, above


def control_of(
    model: mujoco.MjModel, servos: Servos | None = None
) -> Callable[[Float[Array, " nu"]], Float[Array, " nu"]]:
    """From an action in [-1, 1] to a control: see `spans_of`."""
    centre, below, above = (np.asarray(x, np.float32) for x in spans_of(model, servos))
    if servos is None or not len(servos.numbers):
        if (above == 1).all() and (centre == 0).all():
            return lambda action: action
        return lambda action: jnp.asarray(centre) + jnp.asarray(above) * action
    limited, (low, high) = model.actuator_ctrllimited > 0, model.actuator_ctrlrange.T
    least, most = np.float32(np.where(limited, low, -np.inf)), np.float32(np.where(limited, high, np.inf))

    def control(action: Float[Array, " nu"]) -> Float[Array, " nu"]:
        return jnp.clip(centre + jnp.where(action < 0, below, above) * action, least, most)

    return control


def set_options(spec: mujoco.MjSpec, config: PhysicsConfig) -> None:
    """Writes the solver and integrator settings into a model under construction."""
    option = spec.option
    option.timestep = config.timestep
    option.iterations = config.iterations
    option.ls_iterations = config.ls_iterations
    option.solver = getattr(mujoco.mjtSolver, f"mjSOL_{config.solver.upper()}")
    if not config.eulerdamp:
        option.disableflags |= mujoco.mjtDisableBit.mjDSBL_EULERDAMP
