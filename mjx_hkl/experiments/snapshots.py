"""What is looked at of agents while they are trained, where it is asked for: histograms and videos."""

from collections.abc import Callable

import jax
import numpy as np

from mjx_hkl.environments import many
from mjx_hkl.experiments.players import Player
from mjx_hkl.experiments.recipe import Recipe
from mjx_hkl.experiments.run_directory import RunDirectory
from mjx_hkl.experiments.tracking import Tracker, Tracking
from mjx_hkl.models.agent import Agent
from mjx_hkl.training.loop import Loop
from mjx_hkl.training.probe import probe
from mjx_hkl.training.sharding import replicated
from mjx_hkl.training.step import SEED_AXES, TrainState


def agent_of_seed(state: TrainState, index: int) -> Agent:
    """One seed's agent to evaluate and export, of a state of several, on this process's first device."""

    def pick(agents: Agent) -> Agent:
        return jax.tree.map(lambda x: x[index], agents)

    agents = state.learner.averaged
    everywhere = replicated(jax.tree.leaves(agents)[0].sharding)
    picked = jax.jit(pick, out_shardings=everywhere)(agents)
    return jax.device_put(jax.device_get(picked))


class Snapshots:
    """Takes them of the states of a run, in all processes alike, as each may hold a part of a state.

    Args:
      tracking: what is asked for.
      loop: of the run.
      run: in whose folder `videos` they are written, STEPS.mp4.
      recipe: of the run.
      say: shows people a line.
    """

    def __init__(
        self,
        tracking: Tracking,
        loop: Loop,
        run: RunDirectory,
        recipe: Recipe,
        say: Callable[[str], object],
    ):
        self._tracking, self._loop, self._recipe, self._say = tracking, loop, recipe, say
        self._videos = run.path / "videos"
        self._every = tracking.video_interval if tracking.render else 0
        self._films = True
        step = loop.schedule.train_step
        every_seed = jax.vmap(lambda state: probe(step, state), in_axes=(SEED_AXES,))
        self._probe = jax.jit(every_seed, out_shardings=replicated(loop.abstract.iteration.sharding))

    def take(self, state: TrainState, before: int, done: int, tracker: Tracker | None) -> None:
        """Those due at the end of a log interval.

        Args:
          state: at its end.
          before: environment steps at its start.
          done: at its end.
          tracker: is told of them; None in other processes than the first.
        """
        if self._tracking.histograms:
            seen = jax.device_get(self._probe(state))
            if tracker:
                self._tell(tracker, done, seen.latents, seen.actions)
        if self._every and (done // self._every > before // self._every):
            agent = agent_of_seed(state, 0)
            if tracker and self._films:
                self._film(tracker, done, agent)

    def _tell(self, tracker: Tracker, done: int, latents: np.ndarray, actions: np.ndarray) -> None:
        """A histogram of each number of a latent and of an action; leading axes seeds, time, worlds."""
        for index in range(len(latents)):
            samples = {
                f"{name}/{number}": values.reshape(-1, values.shape[-1])[:, number]
                for name, values in (("latents", latents[index]), ("actions", actions[index]))
                for number in range(values.shape[-1])
            }
            finite = {name: x[np.isfinite(x)] for name, x in samples.items()}
            told = {name: x for name, x in finite.items() if x.size}
            tracker.histograms(self._recipe.seed + index, done, told)

    def _film(self, tracker: Tracker, done: int, agent: Agent) -> None:
        """An episode of the first seed in its environment, or in its first one."""
        path = self._videos / f"{done}.mp4"
        name, worlds = next(iter(self._loop.schedule.train_step.environment.tasks.items()))
        player = Player(agent, many(worlds.env, 1), name or self._recipe.environment_name)
        render = self._tracking.render
        try:
            path.parent.mkdir(exist_ok=True)
            if render:
                render(player, path, self._recipe.seed)
        except Exception as error:  # no OpenGL, a world that cannot be drawn, no encoder, a full disk
            self._films = False  # the other processes go on to take part in what this one needs of them
            self._say(f"no videos, training goes on: {' '.join(str(error).split()) or type(error).__name__}")
            return
        tracker.video(self._recipe.seed, done, path)
