"""What can be seen of a run from outside; nothing here knows Dagster."""
