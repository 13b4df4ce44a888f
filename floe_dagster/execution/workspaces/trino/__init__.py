"""Trino: a schema of the catalog that is the run's alone."""
