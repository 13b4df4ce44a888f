"""An Iceberg REST catalog that gives out keys for its tables, over a store that knows who may reach what.

`catalog` speaks the protocol of `rest-catalog-open-api.yaml` (Iceberg 1.10, as Polaris 1.4.1 ships it) over PyIceberg's own
catalog in a SQLite file; `store` is as much of S3 as PyArrow's file system asks for, with signatures that are looked at.
tests/services runs the same scenarios over MinIO and its STS, and holds every request and answer to the document: what these
two assume of a store and of the protocol is what those show.
"""
