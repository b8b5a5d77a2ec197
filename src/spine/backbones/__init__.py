"""One file per backbone: the network, its variants and its builder."""
