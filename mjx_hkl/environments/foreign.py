"""Environments of Brax and MuJoCo Playground by name, with arguments of their own."""

import contextlib
import inspect
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from mjx_hkl.environments.adapter import AdaptedWorld
from mjx_hkl.environments.physics import no_log_file
from mjx_hkl.errors import UserError, unknown_name

_ENGINES = {"brax": ("auto",), "playground": ("auto", "mjx", "warp")}  # Brax's have their own
_EPISODE_LENGTH = "episode_length"
_BRAX_EPISODE_LENGTH = 1000  # what Brax itself takes where nothing is said
_NOT_FOR_USERS = ("impl", "action_repeat")  # our engine says the first, Playground's trainers read the second


def is_foreign(name: str) -> bool:
    """Whether it names an environment of theirs, `brax:NAME` or `playground:NAME`."""
    source, colon, _ = name.partition(":")
    return bool(colon) and source in _ENGINES


def load_foreign(given: str, engine: str) -> AdaptedWorld:
    """The environment `brax:NAME` or `playground:NAME`, arguments after it: `brax:ant backend=mjx`.

    An argument is one that the environment's class takes, a field of Playground's configuration such as
    `noise_config.level=0.5`, or `episode_length`. Its value is as in TOML; a text needs no quotes.

    Raises:
      UserError: there is none, its package is not installed, it does not run on the engine, or an argument
        is wrong.
    """
    name, arguments = _parsed(given)
    source, rest = name.split(":", 1)
    if engine not in _ENGINES[source]:
        raise UserError(f"{name!r} does not run on engine {engine!r}, only on {', '.join(_ENGINES[source])}")
    if source == "brax":
        return _brax(name, rest, arguments)
    return _playground(name, rest, arguments, "warp" if engine == "warp" else "jax")


def _brax(name: str, rest: str, arguments: dict[str, Any]) -> AdaptedWorld:
    from brax import envs

    if rest not in envs._envs:
        raise unknown_name("Brax environment", rest, envs._envs)
    _require_known(name, arguments, [*_keywords(envs._envs[rest]), _EPISODE_LENGTH])
    given = {key: value for key, value in arguments.items() if key != _EPISODE_LENGTH}
    steps = _steps(name, arguments.get(_EPISODE_LENGTH, _BRAX_EPISODE_LENGTH))

    def make() -> AdaptedWorld:
        return AdaptedWorld(envs.get_environment(rest, **given), name, steps, arguments=given)

    return _made(name, make, is_default=not given)


def _playground(name: str, rest: str, arguments: dict[str, Any], impl: str) -> AdaptedWorld:
    try:
        from mujoco_playground import registry  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        needs = "needs MuJoCo Playground: pip install 'mjx-hkl[playground]'"
        raise UserError(f"{name!r} {needs} ({error})") from error
    if rest not in registry.ALL_ENVS:
        raise unknown_name("Playground environment", rest, registry.ALL_ENVS)
    config = registry.get_default_config(rest)
    _require_known(name, arguments, [key for key in _flat(config.to_dict()) if key not in _NOT_FOR_USERS])
    changes = {**arguments, "impl": impl}
    given = {key: value for key, value in arguments.items() if key != _EPISODE_LENGTH}

    def make() -> AdaptedWorld:
        env = registry.load(rest, config=config, config_overrides=changes)
        steps = _steps(name, config.episode_length)  # the environment has changed its configuration in place
        return AdaptedWorld(env, name, steps, "warp" if impl == "warp" else "mjx", given)

    return _made(name, make, is_default=not given)


def _parsed(given: str) -> tuple[str, dict[str, Any]]:
    """The name, and the arguments after it."""
    name, *words = given.split()
    arguments: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not key or not equals:
            raise UserError(f"{name}: {word!r} is no argument; write ARGUMENT=VALUE, without spaces")
        if key in arguments:
            raise UserError(f"{name}: argument {key} is there twice")
        arguments[key] = _value(value)
    return name, arguments


def _value(text: str) -> Any:
    """The boolean, number, text or list that TOML reads; else the text as it is."""
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return value if isinstance(value, bool | int | float | str | list) else text


def _steps(name: str, length: Any) -> int:
    if isinstance(length, bool) or not isinstance(length, int) or length < 1:
        raise UserError(f"{name}: {_EPISODE_LENGTH} must be a whole number above 0, not {length!r}")
    return length


def _require_known(name: str, arguments: Iterable[str], known: list[str]) -> None:
    for key in arguments:
        if key not in known:
            raise unknown_name(f"argument of {name}", key, known)


def _made(name: str, make: Callable[[], AdaptedWorld], is_default: bool) -> AdaptedWorld:
    """What `make` gives; whatever theirs raises becomes a line, and what it prints goes to stderr.

    With arguments a step is traced too: many are first looked at there.
    """
    try:
        with contextlib.redirect_stdout(sys.stderr), no_log_file():
            world = make()
            if not is_default:
                start = jax.eval_shape(world.reset, jax.random.key(0))
                jax.eval_shape(world.step, start, jnp.zeros(world.action_size))
            return world
    except UserError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{name} cannot be made: {reason}") from error


def _keywords(cls: type) -> list[str]:
    """What a class takes by name, also what it hands on to the classes that it extends; not the system."""
    found = []
    for base in inspect.getmro(cls):
        if "__init__" not in vars(base):
            continue
        parameters = inspect.signature(base.__init__).parameters.values()
        found += [x.name for x in parameters if x.kind in (x.POSITIONAL_OR_KEYWORD, x.KEYWORD_ONLY)]
        if not any(x.kind is x.VAR_KEYWORD for x in parameters):
            break
    return [name for name in dict.fromkeys(found) if name not in ("self", "sys")]


def _flat(table: Mapping[str, Any], before: str = "") -> list[str]:
    """Names of all that is in nested tables, with dots."""
    return [
        name
        for key, value in table.items()
        for name in (_flat(value, f"{before}{key}.") if isinstance(value, Mapping) else [f"{before}{key}"])
    ]
