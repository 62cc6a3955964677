"""Trust: how far learned band weights can be trusted. NumPy in, numbers out."""
