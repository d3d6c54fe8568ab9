"""Files, servers and browsers that several tests need."""
