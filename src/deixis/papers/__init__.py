"""Tables of the papers, row by row, beside the papers' own numbers."""
