"""Phrases: tokens, directions, and writing them for annotated things."""
