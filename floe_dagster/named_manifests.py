"""Which manifests a product names, as far as its documents can be read.

Nothing here raises for what stands in a document: whoever looks for a product's files must find them while somebody
writes.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

SPEC_FILE = "floe.yaml"
MAX_DOCUMENT_BYTES = 1 << 20
MAX_CHAIN = 100
MAX_NODES = 10_000
_MANIFEST = re.compile(
    r"""^\s*(?:platform:\s*\{\s*)?manifest:\s*(?:"([^"\n]+)"|'([^'\n]+)'|([^\s"'{}\[\],#]+))""", re.M
)


def named_manifest(product_dir: Path) -> str | None:
    """Return `platform.manifest` of a product's `floe.yaml`; None where it names none, or cannot be read.

    A line `manifest: path` counts also where the rest of the document is no YAML, as while somebody edits it: the
    product's root, and with it the folder of its tables, must not change in that moment.
    """
    spec = lenient_yaml(product_dir / SPEC_FILE)
    if spec:
        platform = spec.get("platform")
        named = platform.get("manifest") if isinstance(platform, dict) else None
    else:
        text = (_content(product_dir / SPEC_FILE) or b"").decode("utf-8", "replace")
        found = _MANIFEST.search(text)
        named = next((group for group in found.groups() if group), None) if found else None
    return named if isinstance(named, str) and named.strip() else None


def manifest_chain(folder: Path, named: str) -> Iterator[tuple[str, str]]:
    """Yield what a document names and its path, then the same of each parent.

    Args:
        folder: Of the document that names the first.
        named: Path of the first manifest, as it stands there.
    """
    seen: list[str] = []
    path = os.path.normpath(os.path.join(folder, named))
    while path not in seen and len(seen) < MAX_CHAIN:
        seen.append(path)
        yield named, path
        document = lenient_yaml(Path(path))
        parent = document.get("parent_manifest", document.get("parentManifest"))
        if not isinstance(parent, str) or not parent.strip():
            return
        named, path = parent, os.path.normpath(os.path.join(os.path.dirname(path), parent))


def lenient_yaml(path: Path) -> dict[Any, Any]:
    """Return the mapping in a YAML file, or an empty one where there is none that can be read.

    Only the node tree is made, and no more of it than `MAX_NODES` is turned into values: aliases and merge
    keys cannot make a small file large.
    """
    import yaml

    content = _content(path)
    if content is None:
        return {}
    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        data = _plain(yaml.compose(content, Loader=loader), [MAX_NODES])
    except (ValueError, yaml.YAMLError, RecursionError, TypeError):
        return {}
    return data if isinstance(data, dict) else {}


def _content(path: Path) -> bytes | None:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > MAX_DOCUMENT_BYTES:
            return None
        return path.read_bytes()
    except (OSError, ValueError):
        return None


def _plain(node: Any, budget: list[int]) -> Any:
    import yaml

    budget[0] -= 1
    if budget[0] < 0:
        raise ValueError("too many nodes")
    if isinstance(node, yaml.MappingNode):
        pairs = [(key.value, value) for key, value in node.value if isinstance(key, yaml.ScalarNode)]
        data = {key: _plain(value, budget) for key, value in pairs if key != "<<"}
        for key, value in pairs:
            if key == "<<":
                merged = _plain(value, budget)
                for other in merged if isinstance(merged, list) else [merged]:
                    data = {**other, **data} if isinstance(other, dict) else data
        return data
    if isinstance(node, yaml.SequenceNode):
        return [_plain(item, budget) for item in node.value]
    # No path has this character, and the system refuses to look for one that has.
    return node.value if isinstance(node, yaml.ScalarNode) and "\0" not in node.value else None
