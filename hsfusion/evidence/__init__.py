"""Evidence on band weights: repeated trainings, their agreement, and what happens where bands are removed."""
