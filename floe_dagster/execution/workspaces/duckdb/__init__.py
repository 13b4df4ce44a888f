"""DuckDB: a file of this machine."""
