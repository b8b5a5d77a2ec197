"""Tasks. Each folder has a specification (spec.py), the training and evaluation steps (task.py), losses, metrics and figures."""
