"""What the engine and the renderer on NVIDIA Warp share."""

import functools
import importlib.util
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from mjx_hkl.errors import UserError


def require_warp(what: str) -> None:
    """Warp, without its messages: they would go to stdout.

    Raises:
      UserError: it is not installed, or does not run on this device; `what` says what needs it.
    """
    if importlib.util.find_spec("warp") is None:
        raise UserError(f"{what} 'warp' is not installed; pip install 'mujoco-mjx[warp]'")
    if jax.default_backend() not in ("cpu", "gpu"):
        raise UserError(f"{what} 'warp' runs on NVIDIA GPUs and CPUs, not on {jax.default_backend()}")
    import warp

    warp.config.log_level = warp.LOG_ERROR


def for_whole_batches(make: Callable[[int], Callable[..., Any]]) -> Callable[..., Any]:
    """A function of one world out of functions of whole batches, to be vmapped any number of times.

    Args:
      make: from a number of worlds to the function of as many, whose arrays have a leading axis for them:
        Warp's buffers are made for a number. It is called once for each number, outside of any trace.
    """

    @functools.cache
    def of(num_worlds: int) -> Callable[..., Any]:
        with jax.ensure_compile_time_eval():  # it is kept: no part of the trace it is first asked for in
            whole = make(num_worlds)
        batched = jax.custom_batching.custom_vmap(whole)

        @batched.def_vmap
        def _(axis_size: int, in_batched: Any, *arguments: Any) -> Any:
            def flatten(x: Array, is_batched: bool) -> Array:
                x = x if is_batched else jnp.broadcast_to(x, (axis_size, *x.shape))
                return x.reshape(axis_size * num_worlds, *x.shape[2:])

            out = of(axis_size * num_worlds)(*jax.tree.map(flatten, arguments, tuple(in_batched)))
            unflattened = jax.tree.map(lambda x: x.reshape(axis_size, num_worlds, *x.shape[1:]), out)
            return unflattened, jax.tree.map(lambda _: True, out)

        return batched

    def one(*arguments: Any) -> Any:
        return jax.tree.map(lambda x: x[0], of(1)(*jax.tree.map(lambda x: x[None], arguments)))

    return one
