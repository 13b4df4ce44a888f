"""Tests against real services: MinIO and the Iceberg project's REST catalog."""
