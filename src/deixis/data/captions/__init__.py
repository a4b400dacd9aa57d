"""Phrases written for annotated things: facts, words, choice."""
