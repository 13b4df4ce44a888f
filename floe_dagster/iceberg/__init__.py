"""Iceberg: catalogs, publication of DuckDB relations, restoring them, showing them."""
