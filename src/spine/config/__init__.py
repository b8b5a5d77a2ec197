"""What a configuration may hold, whether its parts fit, and what is built from it."""
