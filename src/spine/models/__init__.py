"""Networks: a backbone and a head, built by name."""
