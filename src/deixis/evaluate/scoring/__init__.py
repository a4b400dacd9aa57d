"""``deixis score``: files of answers that any model gave."""
