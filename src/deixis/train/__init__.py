"""Training: recipes, the loop, calibration."""
