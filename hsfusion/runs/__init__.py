"""Experiments in Python: train, fine-tune, predict, compare, and the run that results; see :mod:`hsfusion`."""
