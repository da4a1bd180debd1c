"""Several processes that train one agent together, each with its own devices. One process needs none of it.

The first process alone writes what people read; checkpoints are written by all, into one file system.
"""

import os

import jax
import numpy as np
from jax.experimental import multihost_utils

from mjx_hkl.errors import UserError

_SETTINGS = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")


def join() -> None:
    """Connects to the other processes. It must be called before anything uses a device.

    SLURM, Kubernetes, Open MPI and Cloud TPUs are found by JAX; elsewhere each process is told by
    JAX_COORDINATOR_ADDRESS (host:port of the first), JAX_NUM_PROCESSES and JAX_PROCESS_ID.

    Raises:
      UserError: nothing tells who the others are, or they cannot be reached.
    """
    address, count, index = (os.environ.get(name) for name in _SETTINGS)
    try:
        jax.distributed.initialize(
            address, None if count is None else int(count), None if index is None else int(index)
        )
    except (ValueError, RuntimeError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"--distributed: cannot meet other processes ({reason}); start each by SLURM, Kubernetes or Open"
            f" MPI, or set {', '.join(_SETTINGS)}"
        ) from error


def is_first() -> bool:
    """Whether this process writes and reports."""
    return jax.process_index() == 0


def wait_for_all(where: str) -> None:
    """Returns once every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(where)


def any_of(flag: bool) -> bool:
    """Whether it is true in any process, the same answer in each."""
    if jax.process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))
