"""Writes trained networks to files for other programs, and compares every file with PyTorch."""
