"""Predictions for images, with the transforms and the inference of evaluations."""
