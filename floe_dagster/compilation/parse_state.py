"""What dbt parsed, carried in a bundle, so that a run need not parse again.

dbt leaves `partial_parse.msgpack` after each parse: its manifest, as dbt itself reads it again. A bundle carries it for each
engine, without what is the machine's or the moment's, and without the values of environment variables that dbt notes there. A
run hands it to dbt as a manifest that is given (`dbtRunner(manifest=…)`): dbt then looks at no file to find out whether it
still holds. So it is said here when it holds: the same sources, by the bundle; the same dbt; the same answers to all that the
project asks while it is parsed (see `parse_reads`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from floe_dagster.compilation.bundle import Bundle, BundleError
from floe_dagster.compilation.parse_reads import ParseReads
from floe_dagster.schemas.compute import ENGINES

PARTIAL_PARSE = "partial_parse.msgpack"
"""dbt's name of it in its target folder."""
OTHER_COMPILATION = "this bundle carries nothing that dbt has parsed: it was compiled by another version"
_MACHINE_SPECIFIC = (
    "generated_at",
    "invocation_id",
    "invocation_started_at",
    "run_started_at",
    "env",
    "user_id",
)
_OF_A_PARSE_ALONE = ("files", "state_check", "env_vars", "flat_graph", "source_patches", "disabled")
"""Sections of the manifest that dbt compares the next parse with, computes anew, or names in messages of a parse."""
_SCRYPT = {"n": 1 << 14, "r": 8, "p": 1, "dklen": 32}


@dataclass(frozen=True, slots=True)
class ParseState:
    """What one engine's adapter parsed, and where it holds.

    Args:
        content: dbt's manifest as msgpack; None where each run has to parse.
        why_not: Why each run has to.
        versions: Of dbt and the adapter.
        reads: Names of the environment variables that the parse depends on.
        values: Digest of their values; None where there are none.
        full_refresh: Whether a full refresh has to parse.
    """

    content: bytes | None = None
    why_not: str | None = None
    versions: Mapping[str, str] | None = None
    reads: tuple[str, ...] = ()
    values: str | None = None
    full_refresh: bool = False

    def documents(self, engine: str) -> dict[str, bytes]:
        """Return the documents of a bundle that hold it.

        Args:
            engine: Whose adapter parsed.
        """
        facts = {name: value for name, value in asdict(self).items() if name != "content"}
        found = {_facts_name(engine): json.dumps(facts, sort_keys=True).encode()}
        if self.content is not None:
            found[_content_name(engine)] = self.content
        return found


def parse_state(
    folder: Path,
    partial_parse: Path,
    engine: str,
    reads: ParseReads,
    environ: Mapping[str, str],
    *,
    listed: Iterable[str],
    places: Iterable[Path],
) -> ParseState:
    """Return what dbt left of a parse, fit to be carried to another machine.

    Args:
        folder: Of the project.
        partial_parse: What dbt left.
        engine: Whose adapter parsed.
        reads: What the parse depends on.
        environ: dbt's whole environment.
        listed: Names of the variables that product and platform agree on.
        places: Folders of this machine that a run elsewhere has not got.
    """
    if reads.command is not None:
        return ParseState(why_not=reads.command)
    if (folder / "catalogs.yml").exists():
        # dbt tells the adapter of them after a parse alone.
        return ParseState(why_not="the project has a catalogs.yml")
    try:
        content, tracked = _portable(partial_parse.read_bytes(), folder)
    except Exception as error:  # whatever another dbt may leave there, a run can parse
        return ParseState(why_not=f"what dbt left of its parse cannot be read: {error}")
    if any(str(place).encode() in content for place in places):
        return ParseState(
            why_not="the project writes paths of the machine that it was parsed on into its models"
        )
    # dbt takes its own settings from variables, too.
    names = {*reads.environment, *tracked, *(name for name in listed if name.startswith("DBT_"))}
    return ParseState(
        content=content,
        versions=_versions(engine),
        reads=tuple(sorted(names)),
        values=_digest(names, environ, content),
        full_refresh=reads.full_refresh,
    )


def usable_state(
    bundle: Bundle,
    engine: str,
    environ: Mapping[str, str],
    *,
    variables: Mapping[str, Any],
    full_refresh: bool,
) -> ParseState:
    """Return what a bundle carries for an engine, with `content` where a run may begin with it, with `why_not` elsewhere.

    Args:
        bundle: What was compiled.
        engine: That the run builds with.
        environ: Environment of the run's dbt.
        variables: dbt variables of this run.
        full_refresh: Whether it is one.
    """
    if variables:
        return ParseState(why_not="this run sets vars, which may change what dbt builds")
    if not bundle.holds(_facts_name(engine)):
        return ParseState(why_not=OTHER_COMPILATION)
    try:
        facts = json.loads(bundle.read(_facts_name(engine)))
        state = ParseState(**{**facts, "reads": tuple(facts["reads"])})
        if why := state.why_not or _other(state, engine, full_refresh=full_refresh):
            return ParseState(why_not=why)
        content = bundle.read(_content_name(engine))
    except (BundleError, TypeError, KeyError, ValueError) as error:
        return ParseState(why_not=f"what the bundle carries of dbt's parse is damaged: {error}")
    if state.values != _digest(state.reads, environ, content):
        names = ", ".join(state.reads)
        return ParseState(
            why_not=f"not every environment variable that the project reads ({names}) has the value that it had when it was "
            "compiled"
        )
    return ParseState(content, None, state.versions, state.reads, state.values, state.full_refresh)


def _other(state: ParseState, engine: str, *, full_refresh: bool) -> str | None:
    here = _versions(engine)
    if state.versions != here:
        then, now = (
            ", ".join(f"{name} {value}" for name, value in sorted((versions or {}).items()))
            for versions in (state.versions, here)
        )
        return f"it was parsed by {then}, and here is {now}"
    if full_refresh and state.full_refresh:
        return "this is a full refresh, and the project asks for that while dbt parses it"
    return None


def _portable(content: bytes, folder: Path) -> tuple[bytes, set[str]]:
    """Return dbt's manifest without what is this machine's, and the names of the variables that dbt saw it read."""
    import msgpack

    manifest: dict[str, Any] = msgpack.unpackb(content, strict_map_key=False)
    names = set(manifest.get("env_vars", ()))
    roots = _roots(manifest, folder)
    for name in _OF_A_PARSE_ALONE:
        manifest.pop(name, None)
    for name in _MACHINE_SPECIFIC:
        manifest["metadata"].pop(name, None)
    for section, entries in manifest.items():
        if section == "metadata" or not isinstance(entries, dict):
            continue
        for entry in entries.values():
            if isinstance(entry, dict):
                entry.pop("created_at", None)
                if entry.get("root_path"):
                    entry["root_path"] = _below(roots, entry["root_path"])
        # dbt finds files in the order of the folder, which another machine has otherwise.
        manifest[section] = {key: entries[key] for key in sorted(entries)}
    return msgpack.packb(manifest), names


def _roots(manifest: Mapping[str, Any], folder: Path) -> set[str]:
    """Return where the project lay when its files were read: what has not changed since dbt takes from an earlier parse."""
    own = manifest["metadata"].get("project_name")
    files = manifest.get("files", {}).values()
    return {str(folder), *(file["path"]["project_root"] for file in files if file["project_name"] == own)}


def _below(roots: Iterable[str], path: str) -> str:
    """Return a seed's project, which may be a package, below the project."""
    for root in roots:
        if Path(path).is_relative_to(root):
            return Path(path).relative_to(root).as_posix()
    raise ValueError("a seed lies outside of the project")


def _versions(engine: str) -> dict[str, str]:
    return {name: metadata.version(name) for name in ("dbt-core", ENGINES[engine].adapter)}


def _digest(names: Iterable[str], environ: Mapping[str, str], content: bytes) -> str | None:
    """Return a digest of the values of variables, which says nothing of them.

    A product may be allowed a variable that is secret, so it costs some 50 ms to try one guess of all values together.
    """
    values = {name: environ.get(name) for name in sorted(names)}
    if not values:
        return None
    salt = hashlib.sha256(content).digest()
    return hashlib.scrypt(json.dumps(values).encode(), salt=salt, **_SCRYPT).hex()


def _facts_name(engine: str) -> str:
    return f"parsed/{engine}.json"


def _content_name(engine: str) -> str:
    return f"parsed/{engine}.msgpack"
