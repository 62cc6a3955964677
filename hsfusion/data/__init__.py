"""Data: Indian Pines, synthetic scenes, splits and leakage, statistics, index batches, the DataModule."""
