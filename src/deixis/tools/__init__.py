"""What is wrong with a copy of a data set, and which of its images must not be trained on."""
