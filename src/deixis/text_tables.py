"""Rows of text as a table: in Markdown, or in columns for a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def markdown_table(rows: Sequence[Sequence[str]], align: str = "l") -> str:
    """Rows as a Markdown table, the first of them the head; no line break at the end.

    Args:
        rows: of one length; what would leave its cell is escaped.
        align: ``l`` or ``r`` for each column from the left; further columns are aligned to the right.
    """
    rules = ["---" if side == "l" else "---:" for side in align.ljust(len(rows[0]), "r")]
    lines = [rows[0], rules, *rows[1:]]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def aligned_table(rows: Sequence[Sequence[str]], *, is_ruled: bool = False, align: str = "l") -> str:
    """Rows in columns of equal width, as a terminal of any width can show them.

    Args:
        rows: of one length.
        is_ruled: whether a line of dashes stands below the first row.
        align: as of :func:`markdown_table`.
    """
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    sides = [str.ljust if side == "l" else str.rjust for side in align.ljust(len(widths), "r")]
    lines = ["  ".join(side(*one) for side, *one in zip(sides, row, widths, strict=True)).rstrip() for row in rows]
    if is_ruled:
        lines.insert(1, "-" * max(map(len, lines)))
    return "\n".join(lines)


def cell(value: float | None, form: str = ".2f") -> str:
    """A number in that format; "-" where there is none."""
    return "-" if value is None else format(value, form)


def _cell(text: str) -> str:
    """Text that cannot leave its cell."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
