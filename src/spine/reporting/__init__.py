"""Reports about runs and backbones: figures, tables, provenance."""
