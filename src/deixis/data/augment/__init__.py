"""Augmentation of annotated images: pixels, boxes, masks and words change together.

Every function takes a `deixis.structures.AnnotatedImage` and returns another; none writes into its argument, and
arrays of the result may share memory with it. What is random draws from a NumPy generator.
"""
