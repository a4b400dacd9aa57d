"""Measure models: every metric beside the baselines that any model must beat."""
