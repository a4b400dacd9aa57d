"""What an evaluation leaves behind: metrics.json, a table, and report.html."""
