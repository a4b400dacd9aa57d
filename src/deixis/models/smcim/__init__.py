"""SMCIM (TIP 2024)."""
