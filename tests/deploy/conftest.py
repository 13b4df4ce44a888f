"""Which tests stay together when several workers share them."""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

IMAGE = "tests/deploy/image/"


class OneStorage(LoadFileScheduling):
    """All tests of the image use one storage, so one worker has them; the others are shared file by file."""

    def _split_scope(self, nodeid: str) -> str:
        return IMAGE if nodeid.startswith(IMAGE) else super()._split_scope(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> OneStorage:
    """`--dist loadgroup` would be for this, but its groups are lost since pytest 9."""
    return OneStorage(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The image takes longest, so it has to begin first."""
    items.sort(key=lambda item: not item.nodeid.startswith(IMAGE))
