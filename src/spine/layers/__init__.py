"""Parts that two or more files use."""
