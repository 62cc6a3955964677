"""Evidence on band weights: repeated trainings, their agreement, and the effect of removing bands."""
