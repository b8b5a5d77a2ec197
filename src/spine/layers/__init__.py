"""Layers and functions that two or more networks share."""
