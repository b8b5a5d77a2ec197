"""Shards: tar archives of WebDataset's convention, with an index of their samples."""
