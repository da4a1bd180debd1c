"""Loops of unknown length, given one: an accelerator then runs on without telling the host after each round.

It is a JAX interpreter: https://docs.jax.dev/en/latest/notebooks/Writing_custom_interpreters_in_Jax.html.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Literal, jaxpr_as_fun


def with_known_rounds(function: Callable[[Any], Any], rounds: int) -> Callable[[Any], Any]:
    """The function, its loops of unknown length run for `rounds`; those after a loop's end change nothing.

    Args:
      function: pure, of a pytree of arrays.
      rounds: as many as any of its loops may need.
    """

    def run(argument: Any) -> Any:
        leaves, structure = jax.tree.flatten(argument)
        program, result = jax.make_jaxpr(
            lambda *leaves: function(structure.unflatten(leaves)), return_shape=True
        )(*leaves)
        return jax.tree.unflatten(jax.tree.structure(result), _evaluate(program, leaves, rounds))

    return run


def _evaluate(program: ClosedJaxpr, arguments: Sequence[Any], rounds: int) -> list[Any]:
    jaxpr = program.jaxpr
    values = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*program.consts, *arguments), strict=True))

    def read(variable: Any) -> Any:
        return variable.val if isinstance(variable, Literal) else values[variable]

    for equation in jaxpr.eqns:
        inputs, inner = [read(x) for x in equation.invars], equation.params.get("jaxpr")
        if equation.primitive.name == "while":
            outputs = _loop(equation.params, inputs, rounds)
        elif equation.primitive.name in ("jit", "pjit") and isinstance(inner, ClosedJaxpr):
            outputs = _evaluate(inner, inputs, rounds)
        else:
            given = equation.primitive.get_bind_params(equation.params)
            functions, parameters = given if isinstance(given, tuple) else ((), given)  # jax 0.10, and later
            outputs = equation.primitive.bind(*functions, *inputs, **parameters)
        many = equation.primitive.multiple_results
        values.update(zip(equation.outvars, outputs if many else [outputs], strict=True))
    return [read(x) for x in jaxpr.outvars]


def _loop(parameters: dict[str, Any], inputs: list[Any], rounds: int) -> Any:
    """`jax.lax.while_loop` as a scan."""
    goes_on, body = (jaxpr_as_fun(parameters[name]) for name in ("cond_jaxpr", "body_jaxpr"))
    of_condition = inputs[: parameters["cond_nconsts"]]
    of_body = inputs[len(of_condition) :][: parameters["body_nconsts"]]
    start = inputs[len(of_condition) + len(of_body) :]

    def one(carry: list[Any], _: None) -> tuple[list[Any], None]:
        (active,) = goes_on(*of_condition, *carry)
        after = body(*of_body, *carry)
        return [jax.lax.select_n(active, old, new) for old, new in zip(carry, after, strict=True)], None

    return jax.lax.scan(one, start, length=rounds)[0]
