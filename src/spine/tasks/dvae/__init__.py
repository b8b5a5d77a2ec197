"""Training of discrete VAEs."""
