"""What dbt reads while it parses a project, beside the project's files.

A parse is the same wherever it is done, unless the project asks for something of that place or that moment: a variable of the
environment, the clock, the command that is run. dbt's own partial parsing knows of the first alone. Here the project's Jinja
is searched for all of them by name: a name too many costs a run the time of a parse, one too few would run another graph.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

_WITH_JINJA = frozenset({".sql", ".yml", ".yaml", ".md"})
_YAML = frozenset({".yml", ".yaml"})
_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)
_BLOCK = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
_STRING = re.compile(r"'[^']*'|\"[^\"]*\"")

_ENV_VAR = re.compile(r"\benv_var\b(?:\s*\(\s*(?:'(\w+)'|\"(\w+)\"))?")
_TARGET = re.compile(r"(?<![.\w])target\b(?!\s*=[^=])(?:\s*\.\s*(\w+))?")
_TARGET_ARGUMENT = re.compile(r"\{%-?\s*macro\s+\w+\s*\([^)]*\btarget\b")
"""dbt's own macros that merge have an argument of this name."""
_SAME_TARGET = frozenset({"name", "type", "schema", "database", "dbname", "profile_name"})
"""What `target` says alike at compile time and in a run; its path, settings and threads are the machine's."""
_COMMAND = re.compile(r"\b(flags|invocation_args_dict|selected_resources)\b")
_REFRESH = re.compile(r"\bshould_full_refresh\b")
_MOMENT = re.compile(r"\b(run_started_at|invocation_id|modules\s*\.\s*(?:datetime|pytz)|modules\s*\[)")
_CONFIG = re.compile(r"\bconfig\s*\(")
_MACRO = re.compile(r"\{%-?\s*(?:macro|test|materialization|data_test)\s+(\w+)")
_NAMING = frozenset({"generate_schema_name", "generate_alias_name", "generate_database_name"})
"""dbt calls these macros for each model while it parses."""


@dataclass(frozen=True, slots=True)
class ParseReads:
    """What a parse depends on.

    Args:
        environment: Names of the environment variables that the project reads.
        command: Why each command has to parse for itself; None where none has to.
        full_refresh: Whether a full refresh may parse to something else.
    """

    environment: tuple[str, ...] = ()
    command: str | None = None
    full_refresh: bool = False


def parse_reads(root: Path) -> ParseReads:
    """Return what the parse of a project depends on.

    Args:
        root: Folder with all sources of the project, its packages among them.
    """
    names: set[str] = set()
    reasons: list[str] = []
    refresh = False
    texts = [*_texts(root)]
    late = _macros_of_the_moment(texts)
    for file, text in texts:
        blocks = _BLOCK.findall(text)
        has_argument = bool(_TARGET_ARGUMENT.search(text))
        for block in blocks:
            for single, double in _ENV_VAR.findall(block):
                if single or double:
                    names.add(single or double)
                else:
                    reasons.append(f"{file} reads environment variables whose names are not written there")
            bare = _STRING.sub("''", block)
            reasons += [
                f"{file} reads target{'.' + found if found else ''}"
                for found in _TARGET.findall(bare)
                if found not in _SAME_TARGET and not has_argument
            ]
            reasons += [f"{file} reads {found}" for found in _COMMAND.findall(bare)]
            refresh = refresh or bool(_REFRESH.search(bare))
        reasons += [
            f"{file} reads {found} while dbt parses it" for found in _moments(file, text, blocks, late)
        ]
    return ParseReads(tuple(sorted(names)), reasons[0] if reasons else None, refresh)


def _texts(root: Path) -> Iterator[tuple[str, str]]:
    """Yield the files with Jinja, without their comments."""
    for path in sorted(root.rglob("*")):
        if path.suffix in _WITH_JINJA and path.is_file():
            text = path.read_text("utf-8", "replace")
            if "{{" in text or "{%" in text:
                yield path.relative_to(root).as_posix(), _COMMENT.sub("", text)


def _macros_of_the_moment(texts: Collection[tuple[str, str]]) -> set[str]:
    """Return the macros whose files ask for the time, or call a macro that does."""
    files = [(frozenset(_MACRO.findall(text)), text) for _file, text in texts]
    files = [(macros, text) for macros, text in files if macros]
    found: set[str] = set()
    while True:
        calls = _calls(found)
        more = {
            macro
            for macros, text in files
            if not macros <= found and (_MOMENT.search(text) or (calls and calls.search(text)))
            for macro in macros
        }
        if more <= found:
            return found
        found |= more


def _calls(macros: Collection[str]) -> re.Pattern[str] | None:
    return re.compile(rf"\b({'|'.join(sorted(macros))})\s*\(") if macros else None


def _moments(file: str, text: str, blocks: Collection[str], late: Collection[str]) -> Iterator[str]:
    """Yield what a file asks of the moment where dbt acts upon the answer while it parses.

    That is everywhere in YAML, in settings, and in the statements of a model; what an expression adds to a model's SQL is
    computed again when the model is run.
    """
    macros = set(_MACRO.findall(text))
    yield from sorted(macros & _NAMING & set(late))
    calls = _calls(late)
    for block in blocks:
        acts = Path(file).suffix in _YAML or _CONFIG.search(block) or (block.startswith("{%") and not macros)
        if acts:
            bare = _STRING.sub("''", block)
            yield from _MOMENT.findall(bare)
            if calls:
                yield from calls.findall(bare)
