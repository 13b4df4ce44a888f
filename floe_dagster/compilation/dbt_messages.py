"""What dbt says is wrong, as findings that name the file and the line that a person has to look at.

dbt names a file in some messages, a part of its path in others, and in some neither it nor a line: then the file and the line
are those of the project where the names stand that dbt quotes, where there is one such place alone.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from floe_dagster.findings import Finding

SUFFIXES = (".sql", ".yml", ".yaml", ".csv", ".md", ".py")
MAX_BYTES = 1 << 20
"""Of a file that is searched for what dbt quotes."""
_FILE = re.compile(r"[\w./ \-]*?([\w.\-/]+\.(?:sql|ya?ml|csv|md|py))\b")
_DBTS_PATH = re.compile(r"FilePath\(searched_path='([^']*)', relative_path='([^']*)'[^)]*\)")
_READING = re.compile(r"Error reading \S+: (\S+)")
_LINE = re.compile(r"\bline (\d+)")
_MODEL = re.compile(r"\bin (?:model|snapshot|seed|test) (\S+)")
_ENTRY = re.compile(r"@ (\w+): (\{.*\}) - at path")
_AT = re.compile(r"at path \[(.*?)\]: ")
_QUOTED = re.compile(r"['`\"]([^'`\"\s]{1,80})['`\"]")
_NODE = re.compile(r"\b(?:model|seed|snapshot|test|source|unit_test)\.\w+\.([\w.\-]+)")
_SAID_OF_TEMPLATE = re.compile(r"\bline \d+ (\S.{3,120}?)(?= line \d+ |$)")
_TRACEBACK = "Traceback (most recent call last)"
_UNREACHABLE = re.compile(
    r"External connection exception|Max retries exceeded|NameResolutionError|Could not resolve host|Failed to connect|"
    r"Connection (?:refused|timed out)|unable to access|error cloning",
    re.IGNORECASE,
)
_NO_MATTER = frozenset(
    {"version", "name", "string", "array", "object", "true", "false", "None", "models", "package_name"}
)


@dataclass(frozen=True, slots=True)
class _Place:
    file: str
    line: int | None = None


@dataclass(frozen=True)
class DbtMessages:
    """Reads what one dbt command printed.

    Args:
        project_dir: The project that it worked on.
        path_prefix: Display path of the product's folder, put before dbt's paths.
        default: Where a finding is placed whose message names nothing; a file of the project.
        advice: What to do about an error.
    """

    project_dir: Path
    path_prefix: str
    default: str = "dbt_project.yml"
    advice: str = "Mend the dbt project; `dbt parse` says the same."

    def findings(self, output: str) -> list[Finding]:
        """Return a finding for each error and each warning.

        Args:
            output: Lines of JSON, as `--log-format json` gives them; what is none is skipped.
        """
        found: list[Finding] = []
        for level, text in _events(output):
            if _TRACEBACK in text:
                # dbt prints the message before it: the kind of error is all that is new.
                kind = last_line(text)
                said = found[-1].message.removeprefix("dbt: ") if found else ""
                if found and " " not in said and kind.endswith(said):
                    # As `'version'` for a KeyError.
                    found[-1] = self.finding(level, f"dbt ended with {kind}")
                elif not found:
                    found.append(self.finding(level, f"dbt ended with {kind}"))
                continue
            found.append(self.finding(level, text))
        return found

    def finding(self, level: str, message: str) -> Finding:
        """Return one message as a finding.

        Args:
            level: dbt's: error or warn.
            message: What dbt said.
        """
        text = " ".join(message.split()).removeprefix("Encountered an error: ")
        text = text.replace(f"{self.project_dir}/", "")
        text = _DBTS_PATH.sub(lambda found: "/".join(found.groups()), text)
        if level == "error" and _UNREACHABLE.search(text) and self.default == "packages.yml":
            return self._unreachable(text)
        place = self._place(text)
        text, model = _without_entry(text), _MODEL.search(text)
        return Finding(
            code="dbt-parse",
            severity="error" if level == "error" else "warning",
            message=f"dbt: {text}",
            file=f"{self.path_prefix}/{place.file}",
            line=place.line,
            model=model.group(1) if model else None,
            fix=self.advice if level == "error" else None,
        )

    def _unreachable(self, text: str) -> Finding:
        host = re.search(r"host='([^']+)'|(?:https?|ssh|git)://([^/\s'\"]+)|git@([^:\s]+):", text)
        named = next((group for group in host.groups() if group), "") if host else ""
        line = self._line_of(self.default, [named.split("@")[-1]]) if named else None
        return Finding(
            code="packages-unreachable",
            severity="error",
            message=f"{named.split('@')[-1] or 'the host of a dbt package'} cannot be reached, so that the product's dbt packages"
            " cannot be installed",
            file=f"{self.path_prefix}/{self.default}",
            line=line or 1,
            fix="Compile where it can be reached; or run `dbt deps` there, and bring package-lock.yml and the folder"
            " dbt_packages beside packages.yml: what is installed is used.",
        )

    def _place(self, text: str) -> _Place:
        file = self._file(text)
        names = self._names(text)
        if file is None:
            return self._only_place(text, names) or _Place(self.default)
        if (entry := _ENTRY.search(text)) is not None:
            at = _AT.search(text)
            line = self._line_of_entry(file, entry.group(1), entry.group(2), at.group(1) if at else "")
            if line is not None:
                return _Place(file, line)
        if (nameless := re.search(r"list element for '(\w+)' does not have a name", text)) is not None:
            return _Place(file, self._line_without_name(file, nameless.group(1)))
        said = _LINE.search(text)
        if said is not None and (not file.endswith((".yml", ".yaml")) or "Syntax error near" in text):
            return _Place(file, int(said.group(1)))
        snippets = [found.group(1) for found in _SAID_OF_TEMPLATE.finditer(text)]
        return _Place(file, self._line_of(file, [*snippets, *names]))

    def _file(self, text: str) -> str | None:
        """Return the file of the project that a message names, relative to the project."""
        reading = _READING.search(text)
        if reading is not None:
            matching = [
                name
                for name in self._files
                if name == reading.group(1) or name.endswith(f"/{reading.group(1)}")
            ]
            broken = [name for name in matching if not _is_yaml(self._text(name))]
            return next(iter(broken or matching), None)
        for found in _FILE.finditer(text):
            name = os.path.normpath(found.group(1))
            if name in self._files:
                return name
        return None

    def _names(self, text: str) -> list[str]:
        text = _ENTRY.sub("", text)
        files = {Path(name).name for name in self._files}
        quoted = [_NODE.sub(lambda found: found.group(1), name) for name in _QUOTED.findall(text)]
        unquoted = re.findall(r"\bresource named (\S+?)\.?(?=\s|$)", text)
        nodes = [found.group(1) for found in _NODE.finditer(text)]
        called = [name.removeprefix("test_") for name in quoted if name.startswith("test_")]
        parts = [name.rpartition(".")[2] for name in quoted if "." in name]
        names = dict.fromkeys([*unquoted, *quoted, *called, *parts, *nodes])
        return [name for name in names if name not in _NO_MATTER and Path(name).name not in files]

    def _only_place(self, text: str, names: list[str]) -> _Place | None:
        """Return where what dbt quotes stands, if that is in one file alone."""
        snippets = [found.group(1) for found in _SAID_OF_TEMPLATE.finditer(text)]
        tag = re.search(r"close tag for (\w+) \(searched from line (\d+)\)", text)
        if tag is not None:
            opened = [name for name in self._files if _unclosed(self._text(name), tag.group(1))]
            return _Place(opened[0], int(tag.group(2))) if len(opened) == 1 else None
        value = re.search(r"at path \[.*?'([^']+)'\]: (.+?) is not ", text)
        if value is not None:
            both = re.compile(rf"{re.escape(value.group(1))}\b.*{re.escape(value.group(2).strip(chr(39)))}")
            places = [
                (name, number)
                for name in self._files
                for number, line in enumerate(self._text(name).splitlines(), 1)
                if both.search(line)
            ]
            if len(places) == 1:
                return _Place(*places[0])
        for wanted in (*snippets, *reversed(names)):
            places = [
                (name, line) for name in self._files if (line := self._line_of(name, [wanted])) is not None
            ]
            if len(places) == 1:
                return _Place(*places[0])
        return None

    def _line_of(self, file: str, names: list[str]) -> int | None:
        """Return the first line of a file in which the first of these names stands that it holds; comments do not count."""
        text = self._text(file)
        return next((line for name in names if (line := line_of_word(text, name)) is not None), None)

    def _line_of_entry(self, file: str, section: str, entry: str, path: str) -> int | None:
        """Return the line of a value in the entry of a schema file that dbt shows.

        Args:
            file: The schema file.
            section: `models`, `sources` and the like.
            entry: The entry, as Python shows a mapping.
            path: Keys and positions below it, as dbt prints them: `'columns'][0]['data_tests'`.
        """
        try:
            root = yaml.compose(self._text(file), Loader=yaml.SafeLoader)
        except (yaml.YAMLError, ValueError, RecursionError):
            return None
        name = re.search(r"'name': '([^']*)'", entry)
        entries = _child(root, section)
        items = entries.value if isinstance(entries, yaml.SequenceNode) else []
        node: Any = next(
            (item for item in items if name and _is_scalar(_child(item, "name"), name.group(1))),
            items[0] if len(items) == 1 else None,
        )
        for part in re.findall(r"'([^']*)'|(\d+)", path):
            below = _child(node, part[0] or int(part[1]))
            if below is None:
                break
            node = below
        return node.start_mark.line + 1 if node is not None else None

    def _line_without_name(self, file: str, section: str) -> int | None:
        with suppress(yaml.YAMLError, ValueError, RecursionError):
            entries = _child(yaml.compose(self._text(file), Loader=yaml.SafeLoader), section)
            for entry in entries.value if isinstance(entries, yaml.SequenceNode) else ():
                if _child(entry, "name") is None:
                    return int(entry.start_mark.line) + 1
        return None

    @cached_property
    def _files(self) -> dict[str, None]:
        found: dict[str, None] = {}
        for folder, folders, names in os.walk(self.project_dir):
            folders[:] = sorted(
                name for name in folders if not name.startswith(".") and name not in ("target", "logs")
            )
            for name in sorted(names):
                if name.endswith(SUFFIXES):
                    found[
                        os.path.relpath(os.path.join(folder, name), self.project_dir).replace(os.sep, "/")
                    ] = None
        return found

    def _text(self, file: str) -> str:
        path = self.project_dir / file
        try:
            return path.read_text(errors="replace") if path.stat().st_size <= MAX_BYTES else ""
        except OSError:
            return ""


def line_of_word(text: str, word: str) -> int | None:
    """Return the first line in which a word stands; comments do not count.

    Args:
        text: Of a file.
        word: May be several words.
    """
    wanted = re.compile(rf"(?<![\w.]){re.escape(word)}(?![\w])")
    for number, line in enumerate(text.splitlines(), 1):
        if not line.lstrip().startswith(("#", "--")) and wanted.search(line):
            return number
    return None


def last_line(traceback: str) -> str:
    """Return what a traceback ends with: the kind of the exception and its message."""
    if "\n" in traceback.strip():
        lines = [line for line in traceback.strip().splitlines() if line and not line[0].isspace()]
        return " ".join(lines[-1].split()) if lines else ""
    # dbt's own log has made one line of it.
    found = re.findall(
        r"(?:^|\s)((?:\w+\.)*\w*(?:Error|Exception|Interrupt)\b:? ?.*?)(?=\s(?:During handling|The above)|$)",
        traceback,
    )
    return found[-1].strip() if found else "an exception"


def _events(output: str) -> Iterator[tuple[str, str]]:
    for line in output.splitlines():
        try:
            event = json.loads(line)
            level, message = event["info"]["level"], str(event["info"]["msg"])
        except (ValueError, KeyError, TypeError):
            continue
        text = re.sub(r"\x1b\[[0-9;]*m", "", message).strip()
        heading = text.startswith(("Encountered an error:", "Summary of encountered")) and len(text) < 30
        # A summary counts what was said before.
        summary = "[DeprecationsSummary]" in text
        if level in ("error", "warn") and text and not heading and not summary:
            yield level, text


def _without_entry(text: str) -> str:
    """Return a message without the whole entry of the schema file that dbt repeats in it."""
    entry = _ENTRY.search(text)
    if entry is None:
        return text
    name = re.search(r"'name': '([^']*)'", entry.group(2))
    shown = f"@ {entry.group(1)}: {name.group(1)} - at path" if name else f"@ {entry.group(1)} - at path"
    return text[: entry.start()] + shown + text[entry.end() :]


def _is_yaml(text: str) -> bool:
    try:
        yaml.compose(text, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return False
    return True


def _unclosed(text: str, tag: str) -> bool:
    opened = len(re.findall(rf"\{{%-?\s*{tag}\b", text))
    return opened > len(re.findall(rf"\{{%-?\s*end{tag}\s*-?%\}}", text))


def _child(node: Any, key: str | int) -> Any:
    if isinstance(node, yaml.MappingNode) and isinstance(key, str):
        return next((value for name, value in node.value if _is_scalar(name, key)), None)
    if isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
        return node.value[key]
    return None


def _is_scalar(node: Any, text: str) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.value == text
