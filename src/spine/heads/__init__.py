"""One file a head."""
