"""YAML documents with the position of every key and value.

PyYAML parses; its node tree carries the marks. Values follow YAML 1.2's core schema: `off`, `no` and
`yes` are words (a governance level may be `off`), dates are strings.
"""

from __future__ import annotations

import math
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from floe_dagster.digests import digits_of
from floe_dagster.findings import Finding, InputError
from floe_dagster.home import display_path

MAX_BYTES = 1 << 20
MAX_DEPTH = 100
MAX_ALIAS_NODES = 10_000

MERGE_KEY = "<<"
NOT_OPENED = frozenset({"file-not-found", "not-a-file", "unreadable-file", "symlink-loop"})
"""Codes of what is wrong with a file before anything is read of it: whoever names it may be wrong as well."""

DocumentPath = tuple[str | int, ...]


@dataclass(slots=True)
class Document:
    """A YAML document.

    Args:
        path: Absolute path.
        display: Path for messages, relative to the project root.
        sha256: Hex digest of the bytes.
        data: Mappings, lists and scalars.
        keys: Line and column (1-based) of every key, by path.
        values: Line and column (1-based) of every value, by path.
    """

    path: Path
    display: str
    sha256: str
    data: Any
    keys: dict[DocumentPath, tuple[int, int]] = field(default_factory=dict)
    values: dict[DocumentPath, tuple[int, int]] = field(default_factory=dict)

    def position(self, path: DocumentPath, *, key: bool = False) -> tuple[int, int]:
        """Return line and column of a value, or of its key; of the nearest parent where it is absent."""
        path = tuple(path)
        table = self.keys if key else self.values
        while path:
            if path in table:
                return table[path]
            other = self.values if key else self.keys
            if path in other:
                return other[path]
            path = path[:-1]
        return self.values.get((), (1, 1))


def dotted(path: DocumentPath) -> str:
    """Return `governance.naming.custom_patterns[0]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.lstrip(".")


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Resolves plain scalars by YAML 1.2's core schema."""


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:int", r"^[-+]?(?:0|[1-9][0-9]*)$|^0o[0-7]+$|^0x[0-9a-fA-F]+$", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"^[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?$|^[-+]?[0-9]+[eE][-+]?[0-9]+$"
        r"|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$",
        "-+0123456789.",
    ),
):
    _Loader.add_implicit_resolver(_tag, re.compile(_pattern), list(_first))


def read_document(path: Path, *, root: Path) -> Document:
    """Read one YAML document.

    Args:
        path: The file.
        root: The project root, for display.

    Raises:
        InputError: It cannot be read, or is not one well-formed document; every problem is named.
    """
    shown = display_path(path, root)
    content = _read(path, shown)
    text = _decode(content, shown)
    node = _compose(text, shown)
    reader = _Reader(shown)
    document = Document(Path(os.path.abspath(path)), shown, digits_of(content), None)
    document.data = reader.read(node, (), document, 0)
    if reader.findings:
        raise InputError(reader.findings)
    if not isinstance(document.data, dict):
        raise _error(
            shown,
            "not-a-mapping",
            f"the document is {_kind(document.data)}, not a mapping",
            allowed="a mapping such as `kind: FloeSpec`",
            fix="Write `key: value` lines at the top.",
        )
    return document


def _read(path: Path, shown: str) -> bytes:
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise _error(shown, "not-a-file", f"{shown} is a folder", fix="Name the file in it.")
        if not stat.S_ISREG(found.st_mode):
            raise _error(shown, "not-a-file", f"{shown} is no regular file", fix="Name a YAML file.")
        if found.st_size > MAX_BYTES:
            raise _error(
                shown,
                "document-too-large",
                f"{shown} has {found.st_size:,} bytes",
                allowed=f"at most {MAX_BYTES:,} bytes",
                fix="Split it.",
            )
        return path.read_bytes()
    except FileNotFoundError:
        fix = "Write the file, or mend the path that names it."
        raise _error(shown, "file-not-found", f"there is no file {shown}", fix=fix) from None
    except OSError as error:
        loop = "symbolic links go in a circle" in str(error) or error.errno == 40
        message = f"{shown} is a symbolic link that leads to itself" if loop else f"{shown} cannot be read"
        raise _error(
            shown,
            "symlink-loop" if loop else "unreadable-file",
            message if loop else f"{message}: {error.strerror}",
            fix="Replace the link by a file." if loop else "Give read permission.",
        ) from None


def _decode(content: bytes, shown: str) -> str:
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _error(shown, "wrong-encoding", f"{shown} is UTF-16", allowed="UTF-8", fix="Save it as UTF-8.")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        column = error.start - (content.rfind(b"\n", 0, error.start) + 1) + 1
        raise _error(
            shown,
            "wrong-encoding",
            f"byte 0x{content[error.start]:02x} is not UTF-8",
            line=line,
            column=column,
            allowed="UTF-8",
            fix="Save the file as UTF-8.",
        ) from None
    for position, character in enumerate(text):
        if _is_control(character):
            before = text[:position]
            raise _error(
                shown,
                "control-character",
                f"control character U+{ord(character):04X}",
                line=before.count("\n") + 1,
                column=position - before.rfind("\n"),
                fix="Remove it.",
            )
    return text


def _is_control(character: str) -> bool:
    return (character < " " and character not in "\t\n\r") or character in "\x7f\ufffe\uffff"


def _compose(text: str, shown: str) -> yaml.Node:
    _check_depth(text, shown)
    loader = _Loader(text)
    try:
        node: yaml.Node | None = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        several = "expected a single document" in str(error.context or "")
        problem = error.problem or error.context or "not well-formed"
        raise _error(
            shown,
            "several-documents" if several else "yaml-syntax",
            "the file holds several documents" if several else f"the YAML is not well-formed: {problem}",
            line=mark.line + 1 if mark else None,
            column=mark.column + 1 if mark else None,
            fix="Remove everything from the second `---` on."
            if several
            else "Check indentation, quotes and colons.",
        ) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _error(
            shown, "yaml-syntax", f"the YAML is not well-formed: {str(error).splitlines()[0]}", fix="Mend it."
        ) from None
    finally:
        loader.dispose()
    if node is None:
        raise _error(
            shown, "empty-document", f"{shown} is empty", fix="See docs/product.md and docs/manifest.md."
        )
    return node


def _check_depth(text: str, shown: str) -> None:
    # Events are flat: the parser does not recurse, the composer would.
    depth = 0
    try:
        for event in yaml.parse(text, Loader=_Loader):
            if isinstance(event, yaml.CollectionStartEvent):
                depth += 1
                if depth > MAX_DEPTH:
                    mark: Any = event.start_mark
                    raise _error(
                        shown,
                        "nesting-too-deep",
                        f"the document is nested more than {MAX_DEPTH} levels deep",
                        line=mark.line + 1,
                        column=mark.column + 1,
                        fix="Flatten it.",
                    )
            elif isinstance(event, yaml.CollectionEndEvent):
                depth -= 1
    except (yaml.YAMLError, ValueError):
        return


class _Reader:
    """Turns nodes into data, noting positions, duplicate keys and whatever else is wrong."""

    def __init__(self, shown: str) -> None:
        self.shown = shown
        self.findings: list[Finding] = []
        self.seen: set[int] = set()
        self.active: set[int] = set()
        self.aliased = 0
        self.full = False

    def read(self, node: yaml.Node, path: DocumentPath, document: Document, depth: int) -> Any:
        document.values[path] = _start(node)
        if id(node) in self.active:
            self.add("recursive-alias", "an alias contains itself", node, path, fix="Write the value out.")
            return None
        repeated = id(node) in self.seen
        self.seen.add(id(node))
        if repeated:
            # Everything below a node that an alias repeats was seen before, so each is counted.
            self.aliased += 1
            if self.aliased > MAX_ALIAS_NODES:
                if not self.full:
                    self.full = True
                    self.add(
                        "too-many-aliases",
                        f"aliases expand to more than {MAX_ALIAS_NODES:,} nodes",
                        node,
                        path,
                        fix="Write the values out.",
                    )
                return None
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, path)
        self.active.add(id(node))
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.read(item, (*path, n), document, depth + 1) for n, item in enumerate(node.value)]
            return self.mapping(node, path, document, depth)
        finally:
            self.active.discard(id(node))

    def mapping(self, node: yaml.Node, path: DocumentPath, document: Document, depth: int) -> dict[str, Any]:
        data: dict[str, Any] = {}
        if not node.tag.endswith(":map"):
            self.add("yaml-tag", f"tag {node.tag} is not allowed", node, path, fix="Remove the tag.")
        merged: list[yaml.Node] = []
        for key_node, value_node in node.value:
            if _is_merge(key_node):
                merged += value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
                continue
            key = self.scalar(key_node, path) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                if key_node.tag.endswith((":int", ":float", ":bool", ":null")) or key is None:
                    self.add(
                        "key-not-text", "a key is not text", key_node, path, fix="Put the key in quotes."
                    )
                continue
            here = (*path, key)
            if key in data:
                first = document.keys[here]
                self.add(
                    "duplicate-key",
                    f"key {key!r} stands twice; the first is in line {first[0]}",
                    key_node,
                    here,
                    fix="Remove one of them.",
                )
                continue
            document.keys[here] = _start(key_node)
            data[key] = self.read(value_node, here, document, depth + 1)
        for other in merged:
            self.merge(other, data, path, document, depth)
        return data

    def merge(
        self, node: yaml.Node, data: dict[str, Any], path: DocumentPath, document: Document, depth: int
    ) -> None:
        """Add what a merge key names (https://yaml.org/type/merge.html): a key that is there already stays."""
        if not isinstance(node, yaml.MappingNode):
            self.add(
                "merge-key",
                "the merge key << names something that is not a mapping",
                node,
                (*path, MERGE_KEY),
                fix="Write `<<: *name`, or `<<: [*one, *other]`, where each alias is one of a mapping.",
            )
            return
        here = (*path, MERGE_KEY)
        own = Document(document.path, document.display, document.sha256, None)
        found = self.read(node, here, own, depth + 1)
        if not isinstance(found, dict):
            return
        below = len(here)
        new = {key: value for key, value in found.items() if key not in data}
        data.update(new)
        for table, places in ((document.keys, own.keys), (document.values, own.values)):
            for at, position in places.items():
                if len(at) > below and at[below] in new:
                    table[(*path, *at[below:])] = position

    def scalar(self, node: yaml.ScalarNode, path: DocumentPath) -> Any:
        kind = node.tag.rpartition(":")[2]
        text = str(node.value)
        if kind == "str" or node.tag == "!":
            # An escape such as "\\0" writes what may not stand there as it is.
            if (control := next(filter(_is_control, text), None)) is not None:
                self.add(
                    "control-character",
                    f"control character U+{ord(control):04X}",
                    node,
                    path,
                    fix="Remove it.",
                )
                return "".join(character for character in text if not _is_control(character))
            return text
        if kind == "null":
            return None
        if kind == "bool":
            return text.lower() == "true"
        if kind == "int":
            digits = text.lstrip("+-")
            if len(digits) > 18:
                self.add(
                    "number-too-large", "the number is too large", node, path, fix="Use a smaller number."
                )
                return 0
            base = {"0x": 16, "0o": 8}.get(digits[:2].lower(), 10)
            try:
                return int(text, base)
            except ValueError:
                return text
        if kind == "float":
            number = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
            if not math.isfinite(number):
                self.add(
                    "number-not-finite",
                    f"{text} is no number to work with",
                    node,
                    path,
                    fix="Write a number.",
                )
                return 0.0
            return number
        self.add("yaml-tag", f"tag {node.tag} is not allowed", node, path, fix="Remove the tag.")
        return text

    def add(self, code: str, message: str, node: yaml.Node, path: DocumentPath, *, fix: str) -> None:
        line, column = _start(node)
        self.findings.append(
            Finding(
                code=code,
                severity="error",
                message=message,
                file=self.shown,
                line=line,
                column=column,
                field=dotted(path) or None,
                fix=fix,
            )
        )


def _is_merge(node: yaml.Node) -> bool:
    # In quotes it is a key like any other.
    return isinstance(node, yaml.ScalarNode) and not node.style and node.value == MERGE_KEY


def _start(node: yaml.Node) -> tuple[int, int]:
    mark: Any = node.start_mark
    return mark.line + 1, mark.column + 1


def _kind(data: Any) -> str:
    return {list: "a list", str: "text", type(None): "empty"}.get(type(data), "a single value")


def _error(shown: str, code: str, message: str, **fields: Any) -> InputError:
    return InputError([Finding(code=code, severity="error", message=message, file=shown, **fields)])
