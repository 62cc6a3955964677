"""Writers of hostile model files and checkpoints, and the process in which commands open them."""
