"""Lightning's logger for Trackio: ``logger=trackio``."""

from __future__ import annotations

import importlib
import io
from typing import Any

from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only
from lightning_utilities.core.imports import RequirementCache
from PIL import Image

from hsfusion.plots.style import figure_file


class TrackioLogger(Logger):
    """Lightning's logger for Trackio, which has the interface of Weights & Biases and keeps runs in files.

    ``project`` is what runs are shown together by, ``name`` that of the run. Trackio does not need ``save_dir``.
    """

    def __init__(self, *, project: str, name: str, save_dir: object = None) -> None:
        if not (known := RequirementCache("trackio>=0.20")):
            raise ModuleNotFoundError(str(known))
        self._project, self._name = project, name
        self._run: Any = None

    @property
    def name(self) -> str:
        """Name of the run."""
        return self._name

    @property
    def version(self) -> str:
        """Empty: Trackio tells runs of one name apart by itself."""
        return ""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run of Trackio, begun at the first call."""
        trackio: Any = importlib.import_module("trackio")
        if self._run is None:
            self._run = trackio.init(self._project, name=self._name, embed=False)
        return self._run

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Logs metrics, by the step where there is one."""
        self.experiment.log(metrics, step=step)

    @rank_zero_only
    def log_image(self, key: str, images: list[Any]) -> None:
        """Logs figures of Matplotlib."""
        trackio: Any = importlib.import_module("trackio")
        for figure in images:
            self.experiment.log({key: trackio.Image(Image.open(io.BytesIO(figure_file(figure, "png"))))})

    @rank_zero_only
    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Logs the settings of the LightningModule."""
        self.experiment.config.update(params)
