"""One file a backbone: the implementations with which it is compared."""
