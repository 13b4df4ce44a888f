"""Which tests stay together when several workers share them (`--dist loadgroup`)."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
IMAGE = HERE / "image"


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All tests of the image use one storage, so one worker has them; the others are shared file by file."""
    for item in items:
        if HERE in item.path.parents:
            group = IMAGE if IMAGE in item.path.parents else item.path
            item.add_marker(pytest.mark.xdist_group(str(group.relative_to(HERE))))
    # The image takes longest, so it has to begin first.
    items.sort(key=lambda item: IMAGE not in item.path.parents)
