"""The three documents, typed to the leaf; nothing here reads a file or knows Dagster."""
