"""The ``deixis`` family."""
