"""What a run leaves for its user: figures, tables, provenance."""
