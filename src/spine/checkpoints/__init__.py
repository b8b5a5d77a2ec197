"""Weight files: reading, layouts of publishers, loading, downloads."""
