"""Shapes and types of observation groups: the same from world to replay to module."""

import dataclasses
import math

import numpy as np


@dataclasses.dataclass(frozen=True)
class ArraySpec:
    """One observation group of one world at one step, without batch or time.

    Attributes:
      shape: () to any number of axes: (n,) a vector, (height, width, channels) an image.
      dtype: a NumPy name: float32, uint8, int32.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"

    @classmethod
    def of(cls, x: object) -> "ArraySpec":
        """The spec of an array, or of anything else with a shape and a dtype."""
        return cls(tuple(x.shape), str(np.dtype(x.dtype)))  # pyright: ignore[reportAttributeAccessIssue]

    @property
    def size(self) -> int:
        """Numbers in one array."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Of one array."""
        return self.size * np.dtype(self.dtype).itemsize

    @property
    def is_vector(self) -> bool:
        """Whether it is one axis of floating-point numbers, which a network takes as it is."""
        return len(self.shape) == 1 and np.issubdtype(np.dtype(self.dtype), np.floating)

    @property
    def is_image(self) -> bool:
        """Whether it is (height, width, channels) of unsigned bytes."""
        return len(self.shape) == 3 and self.dtype == "uint8"

    def __str__(self) -> str:
        """For people: `17`, or `64x64x3 uint8`."""
        shape = "x".join(map(str, self.shape)) or "one number"
        return shape if self.dtype == "float32" else f"{shape} {self.dtype}"
