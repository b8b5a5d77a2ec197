"""One file a format, and the one DataModule that serves them all."""
