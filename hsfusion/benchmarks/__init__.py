"""Benchmarks: comparisons of methods on the same pixels, and of speed with other libraries."""
