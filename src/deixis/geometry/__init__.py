"""Boxes, masks and images: numpy and Pillow only, every change of frame with its exact way back."""
