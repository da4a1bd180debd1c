"""The KL of the high level as a vector field over the grid world (figure 12, right)."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mjx_hkl.environments.grid import MOVES, CellWorld
from mjx_hkl.models.agent import Agent

_SAMPLES = 1024  # of the latents before a move


@dataclasses.dataclass(frozen=True)
class KLField:
    """What each move to a neighbouring cell costs in KL, for one goal.

    Attributes:
      goal: its column and row.
      kl: KL[π^H(z'|x') ‖ π0^H(z'|z)] after the move, mean over z; NaN where a wall stands in the way, and at
        the goal and into it, where the episode ends and none is paid.
      nears: whether the move brings the agent nearer to the goal.
    """

    goal: tuple[int, int]
    kl: Float[np.ndarray, "columns rows moves"]
    nears: Bool[np.ndarray, "columns rows moves"]

    @property
    def share_towards_goal(self) -> float:
        """Share of cells, those beside the goal apart, whose cheapest move brings the agent nearer to it."""
        cells = self._cells
        cheapest = np.nanargmin(self.kl[cells], -1)
        return float(np.take_along_axis(self.nears[cells], cheapest[:, None], 1).mean())

    @property
    def share_by_chance(self) -> float:
        """The same for a random one of the moves no wall stands against."""
        known = ~np.isnan(self.kl[self._cells])
        return float(((self.nears[self._cells] & known).sum(-1) / known.sum(-1)).mean())

    @property
    def _cells(self) -> Bool[np.ndarray, "columns rows"]:
        beside = np.abs(np.indices(self.kl.shape[:2]) - np.reshape(self.goal, (2, 1, 1))).sum(0) <= 1
        return ~beside


def kl_field(agent: Agent, world: CellWorld, goal: tuple[int, int], seed: int = 0) -> KLField:
    """The field of an agent with a latent, its body at rest in every cell.

    The latent before the move is the high level's own, after a draw from N(0, 1) as at an episode's start.
    """
    size = world.cells
    cells = np.moveaxis(np.indices((size, size)), 0, -1)
    after = cells[:, :, None] + np.asarray(MOVES)
    distance = np.abs(cells - goal).sum(-1)
    inside = ((after >= 0) & (after < size)).all(-1)
    reached = (after == goal).all(-1) | (distance == 0)[..., None]

    def observe(cell: Array) -> dict[str, Array]:
        return jax.vmap(world.observe_at, (0, None))(cell, jnp.asarray(goal))

    def cost(key: Array) -> Float[Array, "cells moves"]:
        here, there = (observe(jnp.asarray(x.reshape(-1, 2))) for x in (cells, after))
        first_key, second_key = jax.random.split(key)
        batch = (size**2,)
        noise = agent.noise(first_key, batch)
        carry, _ = agent.step(agent.start(batch), here, jnp.ones(batch, bool), noise)
        moves = jax.tree.map(lambda x: jnp.repeat(x, len(MOVES), 0), carry)
        batch = (size**2 * len(MOVES),)
        noise = agent.noise(second_key, batch)
        _, step = agent.step(moves, there, jnp.zeros(batch, bool), noise)
        return step.latents.distribution.kl_divergence(step.prior)

    keys = jax.random.split(jax.random.key(seed), _SAMPLES)
    kl = np.asarray(jax.jit(lambda keys: jax.vmap(cost)(keys).mean(0))(keys)).reshape(inside.shape)
    nearer = np.abs(after - goal).sum(-1) < distance[..., None]
    return KLField(goal, np.where(inside & ~reached, kl, np.nan), nearer)


def draw(field: KLField, path: Path) -> None:
    """An arrow for every move, the longer and brighter the less KL it costs."""
    from matplotlib.figure import Figure

    size = field.kl.shape[0]
    figure = Figure(figsize=(6, 5), layout="constrained")
    plot = figure.subplots()
    reward = -field.kl
    least, most = np.nanmin(reward), np.nanmax(reward)
    length = 0.1 + 0.35 * (reward - least) / max(most - least, 1e-9)
    columns, rows, moves = np.nonzero(~np.isnan(reward))
    steps = np.asarray(MOVES)[moves] * length[columns, rows, moves, None]
    arrows = plot.quiver(
        columns,
        rows,
        *steps.T,
        reward[columns, rows, moves],
        angles="xy",
        scale_units="xy",
        scale=1,
        width=0.005,
        cmap="viridis",
    )
    plot.plot(*field.goal, marker="*", markersize=18, color="tab:red", linestyle="none")
    plot.set(xlim=(-0.6, size - 0.4), ylim=(-0.6, size - 0.4), aspect="equal", xlabel="column", ylabel="row")
    figure.colorbar(arrows, label="KL reward of the move, −KL")
    figure.savefig(path, dpi=120)
