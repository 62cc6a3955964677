"""Experiments as Python: train, fine-tune, predict, compare, and the run that each gives."""

from hsfusion.runs.comparison import compare
from hsfusion.runs.finetuning import finetune
from hsfusion.runs.joint import train_jointly
from hsfusion.runs.prediction import PredictSettings, predict
from hsfusion.runs.run import Run, load_run
from hsfusion.runs.settings import ModelSettings, TrainSettings
from hsfusion.runs.training import train

__all__ = [
    "ModelSettings",
    "PredictSettings",
    "Run",
    "TrainSettings",
    "compare",
    "finetune",
    "load_run",
    "predict",
    "train",
    "train_jointly",
]
