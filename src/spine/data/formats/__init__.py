"""One module a data set format."""
