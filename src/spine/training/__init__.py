"""The trainer and what it needs: checkpoints, resuming, stops, progress."""
