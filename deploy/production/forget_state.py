"""Forgets the compiled states of a product that is no more, in Dagster's database and in its storage of states.

python forget_state.py PRODUCT        with DAGSTER_HOME, after the product's location is gone
"""

from __future__ import annotations

import argparse

import dagster as dg
from dagster import UPathDefsStateStorage

from floe_dagster.definitions.state import state_key


def main() -> int:
    """Remove the states; 1 where the instance keeps them in a way that is not known here."""
    parser = argparse.ArgumentParser(
        prog="forget_state.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("product", metavar="PRODUCT", help="its name, as floe.yaml had it: customer-360")
    key = state_key(parser.parse_args().product.replace("-", "_"))
    with dg.DagsterInstance.get() as instance:
        storage = instance.defs_state_storage
        if not isinstance(storage, UPathDefsStateStorage):
            print(f"error: states are kept by {type(storage).__name__}, which has to remove {key} itself")
            return 1
        folder = storage.base_path / storage._sanitize_key(key)
        versions = [entry.name for entry in folder.iterdir()] if folder.exists() else []
        # The name of the newest first: nobody shall ask for a state that is gone.
        storage.set_latest_version(key, None)
        if versions:
            folder.fs.rm(folder.path, recursive=True)
    print(f"forgot {key}: {len(versions)} states in {folder}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
