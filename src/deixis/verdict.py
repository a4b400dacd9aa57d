"""What people read of an answer in tables, images and reports: found, unsure or not found."""

from __future__ import annotations

FOUND, UNSURE, NOT_FOUND = VERDICTS = ("found", "unsure", "not found")
FOUND_SCORE = 0.5
"""The lowest score of "found" for a model that records none."""


def verdict_of(score: float, found_score: float, *, found: bool) -> str:
    """One of `VERDICTS`.

    Args:
        score: 0..1.
        found_score: the lowest score that the model records for "found".
        found: whether score and agreement reach the thresholds that the model records.

    >>> [verdict_of(score, 0.6, found=score >= 0.6) for score in (0.7, 0.4, 0.2)]
    ['found', 'unsure', 'not found']
    """
    if found:
        return FOUND
    return UNSURE if score >= found_score / 2 else NOT_FOUND


def score_in_words(score: float, verdict: str) -> str:
    """A score to draw, with its verdict unless that is "found".

    >>> score_in_words(0.91, FOUND), score_in_words(0.4, UNSURE)
    ('0.91', '0.40 (unsure)')
    """
    return f"{score:.2f}" if verdict == FOUND else f"{score:.2f} ({verdict})"
