"""Reference implementations, one file per backbone."""
