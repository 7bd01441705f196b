"""Files and network <-> arrays and results."""
