"""Neural networks. Nothing here reads a data set."""
