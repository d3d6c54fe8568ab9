"""The networks: one file a model, and what reads and writes their weights."""
