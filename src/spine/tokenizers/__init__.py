"""Tokenizers: networks that map an image to a grid of codes of a vocabulary. One module for each paper."""
