"""From two documents and a dbt project to one bundle; nothing here knows Dagster or the network."""
