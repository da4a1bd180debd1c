"""Accelerators as data files, and JAX's devices for programs that are compiled for them but not run."""

import dataclasses
import importlib.util
from typing import Any, Literal

from jax.experimental import topologies

from mjx_hkl import resources
from mjx_hkl.config import Positive, PositiveFloat, from_table
from mjx_hkl.errors import UserError

_WHEELS = {"cuda": ("jax_cuda12_plugin", "jax_cuda13_plugin"), "tpu": ("libtpu",)}
_POOL = {"cuda": 0.75, "tpu": 1.0}  # of the memory, what JAX takes unless told otherwise


@dataclasses.dataclass(frozen=True)
class Peak:
    """Floating point operations per second in matrix products."""

    float32: PositiveFloat  # where full precision is asked for, as physics does
    default: PositiveFloat  # float32 arrays at JAX's default precision
    bfloat16: PositiveFloat


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """A device file: figures of one device, and what XLA must know to compile for it."""

    title: str
    platform: Literal["cuda", "tpu"]
    memory: Positive  # bytes
    bandwidth: PositiveFloat  # of the memory, bytes per second
    peak: Peak
    source: dict[str, str]  # of each figure
    launch_seconds: PositiveFloat | None = None  # of one kernel; none on a TPU, which runs whole programs
    target: dict[str, Any] = dataclasses.field(default_factory=dict)  # XLA's GpuTargetConfigProto
    slices: tuple[str, ...] = ()  # TPU slices by JAX's names, the smallest first

    def __post_init__(self):
        needs = ("target", "launch_seconds") if self.platform == "cuda" else ("slices",)
        for field in needs:
            if not getattr(self, field):
                raise UserError(f"platform {self.platform!r} needs {field}")

    @property
    def usable_memory(self) -> int:
        """Bytes that JAX takes of the memory by default."""
        return int(self.memory * _POOL[self.platform])

    def devices(self, count: int) -> list[Any]:
        """So many of JAX's devices, to compile for.

        Raises:
          UserError: the wheel that compiles for them is not installed, or there are not so many.
        """
        if not any(importlib.util.find_spec(wheel) for wheel in _WHEELS[self.platform]):
            raise UserError(
                f"to compile for {self.title}, install its extra: pip install 'mjx-hkl[{self.platform}]'"
            )
        found = self._gpus(count) if self.platform == "cuda" else self._tpus(count)
        return list(found.devices)[:count]

    def _gpus(self, count: int) -> topologies.TopologyDescription:
        return topologies.get_topology_desc(
            platform="cuda",
            topology_name=self.title,
            topology=f"1x1x{count}",  # hosts, processes of one, devices of one
            target_config=_proto(self.target),
        )

    def _tpus(self, count: int) -> topologies.TopologyDescription:
        for name in self.slices:
            found = topologies.get_topology_desc(name, platform="tpu")
            if len(found.devices) >= count:
                return found
        raise UserError(f"num_devices {count} exceeds the largest slice of {self.title}, {self.slices[-1]}")


def load_accelerator(name: str) -> Accelerator:
    """The accelerator of that name in `devices/`, or in a .toml file given by path.

    Raises:
      UserError: there is none, or its file says something wrong.
    """
    path = resources.find("device", name, "devices", ".toml")
    return from_table(Accelerator, resources.read_toml(path), str(path))


def _proto(table: dict[str, Any]) -> str:
    """A table in protobuf's text format."""
    lines = []
    for name, value in table.items():
        if isinstance(value, dict):
            lines.append(f"{name} {{ {_proto(value)} }}")
        else:
            lines.append(f'{name}: "{value}"' if isinstance(value, str) else f"{name}: {value}")
    return " ".join(lines)
