"""What a model costs: time, memory, parameters, operations, beside peers in one run."""
