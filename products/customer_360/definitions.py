"""Dagster definitions of this product, from its compiled state."""

from floe_dagster import load_product_definitions

defs = load_product_definitions(__file__)
