"""A host function inside a compiled program, which the compilation cache can then keep.

`jax.pure_callback` does the same, but bakes a Python object into its program, and so the program is compiled
anew by every process. Here the program knows the function by name alone, through XLA's foreign function
interface; what is laid out below is its C header, `xla/ffi/api/c_api.h`, which comes with jaxlib and whose
minor versions are compatible.
"""

import ctypes
import functools
import re
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

_MAJOR = 0  # the version laid out here
_INTERNAL = 13  # the code of an error, as in absl::Status
_kept: dict[str, object] = {}  # what is registered must never be freed

HostFunction = Callable[[np.ndarray], np.ndarray]


def host_call(name: str, function: HostFunction, x: Float[Array, " n"], size: int) -> Float[Array, " {size}"]:
    """function(x), within a jitted program; by `jax.pure_callback` on an accelerator.

    Args:
      name: of the function: those of one name are the same, and the first is called.
      function: takes float32 with any number of leading batch axes, and gives as many.
      x: its argument; under `jax.vmap` all of a batch in one call.
      size: of the result.

    Raises:
      jax.errors.JaxRuntimeError: when the program runs, and the function raises.
    """
    result = jax.ShapeDtypeStruct((size,), jnp.float32)
    if jax.default_backend() != "cpu" or _version()[0] != _MAJOR:
        return jax.pure_callback(function, result, x, vmap_method="broadcast_all")
    _register(name, function)
    return jax.ffi.ffi_call(name, result, vmap_method="broadcast_all")(x)


@functools.cache
def _version() -> tuple[int, int]:
    """Major and minor version of the interface; -1 where its header is not there or does not say."""
    path = Path(jax.ffi.include_dir(), "xla", "ffi", "api", "c_api.h")
    header = path.read_text(encoding="utf-8") if path.is_file() else ""
    found = [re.search(rf"#define XLA_FFI_API_{part} (\d+)", header) for part in ("MAJOR", "MINOR")]
    major, minor = (int(number[1]) if number else -1 for number in found)
    return major, minor


def _register(name: str, function: HostFunction) -> None:
    if name in _kept:
        return
    major, minor = _version()

    @_Handler
    def handler(frame: "ctypes._Pointer[_CallFrame]") -> int | None:
        call = frame.contents
        if call.extension and call.extension.contents.type == _METADATA:  # asked for its version, once
            version = call.extension.contents.metadata.contents.version
            version.major, version.minor = major, minor
            return None
        try:
            _array(call.results)[...] = function(_array(call.arguments))
        except BaseException as error:  # nothing above could catch it
            told = _ErrorArguments(
                ctypes.sizeof(_ErrorArguments), None, f"{type(error).__name__}: {error}".encode(), _INTERNAL
            )
            return call.api.contents.create_error(ctypes.byref(told))
        return None

    capsule = ctypes.pythonapi.PyCapsule_New
    capsule.restype, capsule.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    pointer = capsule(ctypes.cast(handler, ctypes.c_void_p), b"xla._CUSTOM_CALL_TARGET", None)
    jax.ffi.register_ffi_target(name, {"execute": pointer}, platform="cpu")
    _kept[name] = handler


def _array(buffers: "_Buffers") -> np.ndarray:
    """The first buffer, in place."""
    buffer = buffers.pointers[0].contents
    data = ctypes.cast(buffer.data, ctypes.POINTER(ctypes.c_float))
    return np.ctypeslib.as_array(data, tuple(buffer.dimensions[: buffer.rank]))


_METADATA = 1
_HEAD = [("struct_size", ctypes.c_size_t), ("extension_start", ctypes.c_void_p)]


class _Version(ctypes.Structure):
    _fields_ = [*_HEAD, ("major", ctypes.c_int), ("minor", ctypes.c_int)]


class _Metadata(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("version", _Version)]


class _Extension(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("type", ctypes.c_int),
        ("next", ctypes.c_void_p),
        ("metadata", ctypes.POINTER(_Metadata)),
    ]


class _ErrorArguments(ctypes.Structure):
    _fields_ = [*_HEAD, ("message", ctypes.c_char_p), ("code", ctypes.c_int)]


class _Api(ctypes.Structure):
    _fields_ = [
        *_HEAD,
        ("version", _Version),
        ("internal", ctypes.c_void_p),
        ("create_error", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_ErrorArguments))),
    ]


class _Buffer(ctypes.Structure):
    _fields_ = [
        *_HEAD,
        ("dtype", ctypes.c_int),
        ("data", ctypes.c_void_p),
        ("rank", ctypes.c_int64),
        ("dimensions", ctypes.POINTER(ctypes.c_int64)),
    ]


class _Buffers(ctypes.Structure):
    _fields_ = [
        *_HEAD,
        ("size", ctypes.c_int64),
        ("types", ctypes.c_void_p),
        ("pointers", ctypes.POINTER(ctypes.POINTER(_Buffer))),
    ]


class _CallFrame(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("extension", ctypes.POINTER(_Extension)),
        ("api", ctypes.POINTER(_Api)),
        ("context", ctypes.c_void_p),
        ("stage", ctypes.c_int),
        ("arguments", _Buffers),
        ("results", _Buffers),
    ]


_Handler = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_CallFrame))
