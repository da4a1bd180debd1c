"""What a run tells people while it runs, and to whom."""

import contextlib
from contextlib import AbstractContextManager
from typing import Protocol

from mjx_hkl.experiments.recipe import Recipe
from mjx_hkl.training import devices
from mjx_hkl.training.loop import Loop
from mjx_hkl.training.metrics import Row


class Reporter(Protocol):
    """Who shows a run to people."""

    def say(self, text: str) -> None:
        """A line about the run."""
        ...

    def training(self, done: int, total: int, can_succeed: bool) -> AbstractContextManager[None]:
        """Around training, which begins at `done` of `total` environment steps.

        `can_succeed` is whether the world tells of success.
        """
        ...

    def interval(self, rows: list[Row]) -> None:
        """Metrics of one log interval, a row for each seed."""
        ...


class Silent:
    """A reporter that shows nothing."""

    def say(self, text: str) -> None:
        """See `Reporter`."""

    def training(self, done: int, total: int, can_succeed: bool) -> AbstractContextManager[None]:
        """See `Reporter`."""
        return contextlib.nullcontext()

    def interval(self, rows: list[Row]) -> None:
        """See `Reporter`."""


def announce(recipe: Recipe, loop: Loop, reporter: Reporter, held: int = 0) -> None:
    """Says what will run.

    Args:
      recipe: resolved.
      loop: of the recipe.
      reporter: is told.
      held: bytes of each device that the training state takes already.

    Raises:
      UserError: it cannot fit the device.
    """
    state, step = loop.abstract, loop.schedule.train_step
    replay, whole = devices.tree_bytes(state.replay), devices.tree_bytes(state)
    transitions = state.replay.num_envs * state.replay.num_slots * step.algorithm.unroll_length
    num_devices = recipe.num_devices or 1
    devices.require_fits(
        whole // num_devices,
        f"replay of {transitions:,} transitions with the rest of the training state",
        "lower replay_capacity, num_envs or num_seeds",
        held,
    )
    ratio, wanted = step.replay_ratio, step.algorithm.replay_ratio
    rounded = f" (the nearest to {wanted:g})" if abs(ratio - wanted) > 0.02 * wanted else ""
    reporter.say(
        f"{recipe.name}: {recipe.environment_name}, {recipe.num_envs} worlds"
        + (f" x {recipe.num_seeds} seeds" if recipe.num_seeds > 1 else f", seed {recipe.seed}")
        + f", replay ratio {ratio:g}{rounded}, engine {step.environment.env.backend}"
        + f" on {devices.describe(num_devices)}"
    )
    for note in step.environment.env.notes:
        reporter.say(note)
    if not step.total_updates:
        reporter.say(
            f"nothing will be learned: the first update comes after {recipe.min_replay:,} environment steps"
            f" (min_replay), and there are {loop.schedule.environment_steps:,}"
        )
    if step.released and step.release_after >= loop.schedule.environment_steps:
        reporter.say(
            f"nothing will be released: there are {loop.schedule.environment_steps:,} environment steps"
            f" (transfer.release_after: {step.release_after:,})"
        )
    each = " for each seed" if recipe.num_seeds > 1 else ""
    reporter.say(
        f"replay: {transitions:,} transitions{each}, {devices.format_bytes(replay)} in all;"
        f" whole training state: {devices.format_bytes(whole)}"
    )
    images = step.images_bytes
    if images:
        stored, drawn = (
            devices.format_bytes(recipe.num_seeds * images[kind]) for kind in ("stored", "drawn")
        )
        reporter.say(
            f"images in replay: {stored} stored, {drawn} drawn again when sampled; now: {recipe.images}"
        )
