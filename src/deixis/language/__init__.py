"""Phrases: tokens, directions, everyday words, and what stays true of a changed image."""
