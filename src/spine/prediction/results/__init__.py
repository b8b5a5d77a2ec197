"""What models predict: one module for each task, found by its name."""
