"""The image for Dagster+."""
