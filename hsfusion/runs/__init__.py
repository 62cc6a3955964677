"""Experiments as Python: train, fine-tune, predict, compare, and the run that each gives; see :mod:`hsfusion`."""
