"""Benchmarks: methods beside each other on the same pixels, and speed beside what else there is."""
