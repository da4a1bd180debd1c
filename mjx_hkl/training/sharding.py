"""Where the parts of a training state lie on several devices.

The train step is one program for all of them: it computes what a single device would, up to the order of
float additions, and XLA adds what must travel, the sums of gradients and metrics.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from mjx_hkl.errors import UserError
from mjx_hkl.training.step import TrainState

_AXIS = "devices"


def make_layout(
    num_devices: int, num_seeds: int, num_envs: int, num_tasks: int = 1, devices: Sequence[Any] = ()
) -> TrainState:
    """Shardings of a state of several seeds: a prefix of its pytree.

    Where seeds divide evenly, each device holds whole seeds, and nothing travels. Where they do not, each
    device holds a part of each seed's worlds, as many of each of `num_tasks` environments, and of their
    replay, and a copy of everything else. The devices are this machine's, unless others are given, to compile
    for.

    Raises:
      UserError: there are not so many devices, or nothing divides evenly among them.
    """
    devices = devices or jax.devices()
    available = len(devices)
    if num_devices > available:
        hint = "; on a CPU, XLA_FLAGS=--xla_force_host_platform_device_count=N makes N of it"
        raise UserError(
            f"num_devices {num_devices} exceeds the {available} of this machine"
            + (hint if jax.default_backend() == "cpu" else "")
        )
    if jax.process_count() > 1 and num_devices < available:
        raise UserError(
            f"num_devices {num_devices} leaves processes without work: together they have {available}"
        )
    mesh = Mesh(np.array(devices[:num_devices]), (_AXIS,))
    if num_seeds % num_devices == 0:
        whole = part = NamedSharding(mesh, PartitionSpec(_AXIS))
    elif num_envs % (num_tasks * num_devices) == 0:
        whole = NamedSharding(mesh, PartitionSpec())
        part = NamedSharding(mesh, PartitionSpec(None, _AXIS))
    else:
        multiple = "num_devices" if num_tasks == 1 else f"{num_tasks} environments x num_devices"
        raise UserError(
            f"neither {num_seeds} seeds nor {num_envs} environments can be shared evenly by {num_devices}"
            f" devices: make num_envs a multiple of {multiple}"
        )
    places: dict[str, Any] = {"learner": whole, "actor": part, "replay": part, "key": whole}
    return TrainState(**places, iteration=replicated(part))


def replicated(sharding: Any) -> Any:
    """A copy on each of the same devices."""
    return NamedSharding(sharding.mesh, PartitionSpec())
