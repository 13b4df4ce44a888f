"""What one run of a product does, without Dagster: phases, dbt, audit, publication, in this order."""
