"""MLflow: one run there for each seed, by default in RUN/mlflow.db."""

import importlib.util
import json
import logging
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from mjx_hkl.errors import UserError
from mjx_hkl.experiments.loggers.logger import Ledger, LoggedRun, Scalars, flat

_EXPERIMENT = "mjx-hkl"
_NOT_IN_NAMES = re.compile(r"[^/\w.\- :]")  # of metrics, as in `brax:ant backend=mjx`
_MOST = 100  # parameters that it takes at once
_BINS = 64
_DEFAULTS = {
    # with its own, 7 and 120 s, training would stand still for many minutes where a server is gone
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
}


class MLflow:
    """A logger; see `Logger`. MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME hold.

    A run that goes on goes on there, by its id.
    """

    def __init__(self, run: LoggedRun):
        for name, value in _DEFAULTS.items():
            os.environ.setdefault(name, value)
        from mlflow.tracking import MlflowClient

        logging.getLogger("urllib3").setLevel(logging.ERROR)  # which warns of every try; the last one is told
        folder = run.directory.path.resolve()
        uri = os.environ.get("MLFLOW_TRACKING_URI")
        self._client = MlflowClient(tracking_uri=uri or f"sqlite:///{folder / 'mlflow.db'}")
        self._ledger = Ledger(run.directory, "mlflow")
        experiment = self._experiment(None if uri else (folder / "mlflow-files").as_uri())
        self._ids = {seed: self._begun(run, experiment, seed) for seed in run.seeds}
        run.say(f"mlflow: {self._client.tracking_uri}, experiment {experiment}")

    @staticmethod
    def require() -> None:
        """Raises UserError where it is not installed."""
        lacking = [name for name in ("mlflow", "sqlalchemy", "alembic") if not importlib.util.find_spec(name)]
        if lacking:
            raise UserError("logger 'mlflow' is not installed; pip install 'mjx-hkl[mlflow]'")

    def scalars(self, seed: int, step: int, values: Scalars) -> None:
        """See `Logger`."""
        if self._ledger.is_news(seed, step):
            self._log(seed, step, values)
            self._ledger.note(seed, step)

    def histograms(self, seed: int, step: int, values: Mapping[str, Shaped[np.ndarray, " samples"]]) -> None:
        """As JSON, for it draws none."""
        found = {}
        for name, samples in values.items():
            counts, edges = np.histogram(samples, _BINS)
            found[name] = {"counts": counts.tolist(), "edges": edges.tolist()}
        self._client.log_text(self._ids[seed], json.dumps(found), f"histograms/{step}.json")

    def video(self, seed: int, step: int, path: Path) -> None:
        """See `Logger`."""
        self._client.log_artifact(self._ids[seed], str(path), "videos")

    def result(self, seed: int, step: int, values: Scalars) -> None:
        """See `Logger`."""
        self._log(seed, step, values)

    def close(self, failed: bool) -> None:
        """See `Logger`."""
        for run in self._ids.values():
            self._client.set_terminated(run, "FAILED" if failed else "FINISHED")

    def _experiment(self, files: str | None) -> str:
        """The id of the experiment, made where there is none; `files`: where its files are to lie."""
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT)
        known = self._client.get_experiment_by_name(name)
        return known.experiment_id if known else self._client.create_experiment(name, files)

    def _begun(self, run: LoggedRun, experiment: str, seed: int) -> str:
        """The id of a seed's run, new or going on."""
        from mlflow.entities import Param

        def make() -> str:
            made = self._client.create_run(experiment, run_name=run.name(seed), tags={"group": run.group})
            told = [Param(name, str(x)) for name, x in flat(run.hyper_parameters(seed)).items()]
            for first in range(0, len(told), _MOST):
                self._client.log_batch(made.info.run_id, params=told[first : first + _MOST])
            return made.info.run_id

        found = self._ledger.id(seed, make)
        self._client.update_run(found, status="RUNNING")
        self._client.log_artifact(found, str(run.directory.recipe))
        return found

    def _log(self, seed: int, step: int, values: Scalars) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        told = [Metric(_NOT_IN_NAMES.sub("_", name), value, now, step) for name, value in values.items()]
        self._client.log_batch(self._ids[seed], metrics=told)
