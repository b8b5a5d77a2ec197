"""Weight files and checkpoints: reading, layouts of publishers, loading, writing and downloading."""
