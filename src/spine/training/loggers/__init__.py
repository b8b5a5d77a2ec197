"""Loggers of metrics, images and results."""
