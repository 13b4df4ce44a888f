"""OpenLineage: what is said of runs, models, tests and tables, and how it leaves."""
