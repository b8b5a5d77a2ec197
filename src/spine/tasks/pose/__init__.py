"""Keypoint detection with heatmaps."""
