"""How the platform is brought somewhere: onto this machine, into a cluster, to Dagster+."""
