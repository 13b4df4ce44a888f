"""From a bundle to Dagster definitions, and what happens when they run."""
