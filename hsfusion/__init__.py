"""hsfusion: hyperspectral band fusion with learned band weights that can be trusted."""

__version__ = "0.1.0"
