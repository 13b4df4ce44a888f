"""All shipped products in one location, for `dg check defs` and `dg list defs`."""

from floe_dagster.definitions.loader import load_all_product_definitions

defs = load_all_product_definitions(__file__)
