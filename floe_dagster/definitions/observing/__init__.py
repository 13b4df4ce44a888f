"""What runs tell the outside: traces, metrics, logs and lineage, tied to Dagster's runs and steps."""
