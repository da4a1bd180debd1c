"""Which loggers `--logger` may name."""

from collections.abc import Sequence

from mjx_hkl.errors import UserError, unknown_name
from mjx_hkl.experiments.loggers.logger import Logger
from mjx_hkl.experiments.loggers.mlflow import MLflow
from mjx_hkl.experiments.loggers.tensorboard import TensorBoard
from mjx_hkl.experiments.loggers.wandb import WandB

NONE = "none"
"""Stands for no logger."""
LOGGERS: dict[str, type[Logger]] = {"tensorboard": TensorBoard, "wandb": WandB, "mlflow": MLflow}


def require(names: Sequence[str]) -> None:
    """Raises UserError where there is no such logger, or one is not installed or not set up."""
    if not names or (NONE in names and len(names) > 1):
        raise UserError(f"logger: name some of {', '.join(LOGGERS)}, or {NONE} alone")
    for name in names:
        if name != NONE and name not in LOGGERS:
            raise unknown_name("logger", name, [*LOGGERS, NONE])
    for name in names:
        if name in LOGGERS:
            LOGGERS[name].require()
