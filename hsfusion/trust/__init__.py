"""Trust: how far learned band weights can be believed. NumPy in, numbers out."""
