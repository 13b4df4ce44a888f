"""A real Trino on this machine: a coordinator, which works too, and workers."""
