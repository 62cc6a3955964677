"""Data: public and synthetic scenes, splits and leakage, patches and their DataModule."""
