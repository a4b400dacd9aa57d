"""Weights that others published, read as data."""
