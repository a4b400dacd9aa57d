"""Resized pictures with their samples in flat files that are mapped into memory; docs/packing.md tells all of it."""
