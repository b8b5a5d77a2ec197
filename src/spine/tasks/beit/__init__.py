"""BEiT's masked image modeling."""
