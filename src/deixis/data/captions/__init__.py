"""Phrases written for annotated instances: facts, words, choice."""
