"""One file a command: what train.py, eval.py and export.py call."""
