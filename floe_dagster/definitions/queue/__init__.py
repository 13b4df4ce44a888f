"""Many products at once: what a run's place in Dagster's queue depends on."""
