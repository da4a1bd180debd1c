"""Weights & Biases: one run there for each seed, in one group; files in RUN/wandb."""

import importlib.util
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import Shaped
from numpy import ndarray

from mjx_hkl.errors import UserError
from mjx_hkl.experiments.loggers.logger import Ledger, LoggedRun, Scalars

_PROJECT = "mjx-hkl"
_INIT_SECONDS, _FINISH_SECONDS = 60.0, 300.0  # to wait for a network that is not there


class WandB:
    """A logger; see `Logger`. WANDB_MODE, WANDB_PROJECT and such hold.

    A run that goes on goes on there, by its id.
    """

    def __init__(self, run: LoggedRun):
        import wandb

        self._ledger = Ledger(run.directory, "wandb")
        settings = wandb.Settings(
            silent=True, console="off", init_timeout=_INIT_SECONDS, finish_timeout=_FINISH_SECONDS
        )
        self._runs: dict[int, Any] = {}
        for seed in run.seeds:
            self._runs[seed] = wandb.init(
                id=self._ledger.id(seed, lambda: secrets.token_hex(4)),
                resume="allow",
                reinit="create_new",  # beside those of other seeds
                dir=run.directory.path,
                project=os.environ.get("WANDB_PROJECT", _PROJECT),
                group=os.environ.get("WANDB_RUN_GROUP", run.group),
                name=run.name(seed),
                config=run.hyper_parameters(seed),
                allow_val_change=True,  # a run that goes on may be longer
                settings=settings,
            )
        told = next(iter(self._runs.values()))
        offline = f"offline; send it with: wandb sync {run.directory.path}/wandb/offline-run-*"
        where = offline if told.offline else told.url
        run.say(f"wandb: {where}{' and others of its group' if len(self._runs) > 1 else ''}")

    @staticmethod
    def require() -> None:
        """Raises UserError where it is not installed, or it is not offline and nobody is logged in there."""
        if importlib.util.find_spec("wandb") is None:
            raise UserError("logger 'wandb' is not installed; pip install 'mjx-hkl[wandb]'")
        import wandb

        if wandb.setup(wandb.Settings(silent=True)).settings.mode in ("offline", "disabled", "dryrun"):
            return
        try:
            told = "" if wandb.login(prompt=False) else "nobody is logged in"
        except wandb.Error as error:
            told = " ".join(str(error).split())
        if told:
            raise UserError(f"logger 'wandb': {told}; wandb login, or set WANDB_MODE=offline")

    def scalars(self, seed: int, step: int, values: Scalars) -> None:
        """See `Logger`."""
        if self._ledger.is_news(seed, step):
            self._runs[seed].log(dict(values), step=step)
            self._ledger.note(seed, step)

    def histograms(self, seed: int, step: int, values: Mapping[str, Shaped[ndarray, " samples"]]) -> None:
        """See `Logger`."""
        import wandb

        if self._ledger.is_news(seed, step):
            found = {name: wandb.Histogram(x.tolist()) for name, x in values.items()}
            self._runs[seed].log(found, step=step)

    def video(self, seed: int, step: int, path: Path) -> None:
        """See `Logger`."""
        import wandb

        if self._ledger.is_news(seed, step):
            self._runs[seed].log({"videos/episode": wandb.Video(str(path), format="mp4")}, step=step)

    def result(self, seed: int, step: int, values: Scalars) -> None:
        """In the run's summary."""
        self._runs[seed].summary.update(dict(values))

    def close(self, failed: bool) -> None:
        """See `Logger`."""
        for run in self._runs.values():
            run.finish(exit_code=int(failed))
