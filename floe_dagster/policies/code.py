"""Code beside SQL models: hooks, Python models, packages and replaced macros are used where the platform allows them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from floe_dagster.findings import Finding
from floe_dagster.policies.allowed import ALLOW, Allowed
from floe_dagster.policies.model import Project
from floe_dagster.policies.policy import Policy

MADE_TO_BE_REPLACED = frozenset(
    {"generate_schema_name", "generate_alias_name", "generate_database_name", "get_custom_alias"}
)
"""dbt's documentation asks projects to write these for themselves."""
PYTHON = "python"
JINJA_BUILT_INS = frozenset({"ref", "source", "config", "this", "var", "env_var", "statement", "run_query"})
"""What models call without being a macro of dbt: a macro of this name decides what they read."""


class Code(Policy):
    """Nothing runs beside the models that the platform does not allow."""

    name = "code"
    title = "Code"
    description = (
        "Hooks (`on-run-start`, `on-run-end`, `pre_hook`, `post_hook`), Python models, dbt packages, and macros that take the "
        "place of dbt's own (generic tests, materializations, `ref`) are used only where the platform allows them."
    )
    set_by = "`governance.allow`"
    setting = ALLOW
    looks_at = ("model", "snapshot", "seed", "macro", "hook", "package")

    def check(self, project: Project, setting: Allowed | None) -> Iterator[Finding]:
        """Hooks, Python models, packages and replaced macros are allowed by the platform."""
        allowed = setting or Allowed()
        if not allowed.hooks:
            yield from _hooks(project)
        if not allowed.python_models:
            yield from _python_models(project)
        yield from _packages(project, allowed.packages or ())
        yield from _replaced_macros(project, allowed.macros or ())


def _hooks(project: Project) -> Iterator[Finding]:
    for hook in project.hooks:
        of = f" of {hook.name!r}" if hook.kind.endswith("_hook") else ""
        yield project.finding(
            hook.node,
            f"the {hook.kind}{of} runs SQL beside the models, which the platform does not allow",
            "Take the hook out, do its work in a model, or have the platform state governance.allow.hooks.",
            "hook-not-allowed",
            sql_line=_line_of(project, hook.node, hook.kind),
        )


def _line_of(project: Project, node: Mapping[str, Any], kind: str) -> int:
    """Return where a hook stands in the file that findings name: the line that says so, else the first."""
    file = node["original_file_path"].removeprefix("./")
    folder = "" if project.is_own(node) else project.context.package_folders.get(node["package_name"], "")
    text = project.context.read_text(f"{folder}/{file}" if folder else file) or ""
    words = re.compile(kind.replace("_", "[-_]"))
    return next((number for number, line in enumerate(text.splitlines(), 1) if words.search(line)), 1)


def _python_models(project: Project) -> Iterator[Finding]:
    for node in project.models:
        if node.get("language") == PYTHON:
            yield project.finding(
                node,
                f"model {node['name']!r} is in Python, which the platform does not allow",
                "Write it in SQL, or have the platform state governance.allow.python_models.",
                "python-model-not-allowed",
                sql_line=1,
            )


def _packages(project: Project, allowed: list[str] | tuple[str, ...]) -> Iterator[Finding]:
    for package in project.packages:
        if package in allowed:
            continue
        file, line = _place_of_package(project, package)
        yield Finding(
            code="package-not-allowed",
            severity="warning",
            kind="policy",
            message=f"the dbt package {package!r} is used, which the platform does not allow",
            file=project.context.place(file),
            line=line,
            found=package,
            allowed=", ".join(allowed) or "no package",
            fix=f"Take it out, or have the platform add {package} to governance.allow.packages.",
            model=package,
        )


def _place_of_package(project: Project, package: str) -> tuple[str, int]:
    """Return where a package is asked for, as far as its name or its folder stands there."""
    folder = project.context.package_folders.get(package, package)
    for file in ("packages.yml", "dependencies.yml"):
        lines = (project.context.read_text(file) or "").splitlines()
        for number, line in enumerate(lines, 1):
            if folder in line or package in line.replace("-", "_"):
                return file, number
        if lines:
            return file, 1
    return "packages.yml", 1


def _replaced_macros(project: Project, allowed: list[str] | tuple[str, ...]) -> Iterator[Finding]:
    for macro in project.macros:
        name = macro["name"]
        replaced = _replaces(name, project.built_ins)
        if replaced is None or replaced in MADE_TO_BE_REPLACED or {name, replaced} & {*allowed}:
            continue
        text = macro.get("macro_sql") or ""
        yield project.finding(
            macro,
            f"{_kind(name)} takes the place of dbt's own {replaced!r}, so what it does is no longer what it is called",
            "Give it another name, or have the platform add it to governance.allow.macros.",
            "built-in-replaced",
            sql_line=_line_of_macro(project, macro, text),
        )


def _replaces(name: str, built_ins: frozenset[str]) -> str | None:
    """Return which macro of dbt, of an adapter or of Jinja a macro takes the place of; None where it takes none.

    dbt looks for `<adapter>__name` and `default__name` where it calls a macro `name`, and for a materialization under its
    own adapter's name first.
    """
    if name in built_ins or name in JINJA_BUILT_INS:
        return name
    _adapter, _, called = name.partition("__")
    if called and (called in built_ins or f"default__{called}" in built_ins):
        return called
    if name.startswith("materialization_"):
        kind = name.removeprefix("materialization_").rpartition("_")[0]
        if any(each.startswith(f"materialization_{kind}_") for each in built_ins):
            return f"materialization_{kind}_default"
    return None


def _kind(name: str) -> str:
    if name.startswith("materialization_"):
        return f"materialization {name.removeprefix('materialization_')!r}"
    if name.startswith("test_"):
        return f"generic test {name.removeprefix('test_')!r}"
    return f"macro {name!r}"


def _line_of_macro(project: Project, macro: Mapping[str, Any], text: str) -> int:
    folder = "" if project.is_own(macro) else project.context.package_folders.get(macro["package_name"], "")
    file = macro["original_file_path"]
    whole = project.context.read_text(f"{folder}/{file}" if folder else file) or ""
    at = whole.find(text.strip()[:80]) if text.strip() else -1
    return whole.count("\n", 0, at) + 1 if at > 0 else 1
