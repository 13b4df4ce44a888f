"""Tests against a real Trino, with MinIO and the Iceberg project's REST catalog behind it."""
