"""File formats: each reader finds what a file stores and what it says of it; meaning is given to it in one place."""
