"""Publication over a REST catalog to MinIO: a large table, many small ones, ten products at once."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import yaml

from deploy.services import control
from deploy.services.environment import read_environment
from tests.benchmarks.publication import ROWS
from tests.benchmarks.report import Row
from tests.conftest import ROOT

PRELUDE = """
import json, resource, sys, time, uuid
from pathlib import Path
import duckdb, yaml
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog
from floe_dagster.iceberg.publication import PublicationOptions, publish_relation
from floe_dagster.iceberg.relation import RelationName
from floe_dagster.schemas.artifacts import PluginRef

plugins = yaml.safe_load(Path({manifest!r}).read_text())["plugins"]
home = FloeHome(Path({home!r}))
catalog = open_catalog(PluginRef(**plugins["catalog"]), PluginRef(**plugins["storage"]), home=home)
options = PublicationOptions(product="bench", scratch=home.path / "scratch")
# Libraries are loaded and connections made: what is measured is work.
con = duckdb.connect()
con.execute("set enable_progress_bar = false")
con.execute("create table warm as select 1 as a")
publish_relation(con, RelationName("memory", "main", "warm"), catalog=catalog, namespace="bench",
                 table="warm_" + uuid.uuid4().hex, snapshot_properties={{}}, options=options)
"""
LARGE = """
with duckdb.connect({file!r}, read_only=True) as con:
    con.execute("set memory_limit = '1GB'")
    con.execute("set enable_progress_bar = false")
    begun = time.perf_counter()
    result = publish_relation(con, RelationName("large", "main", "facts"), catalog=catalog, namespace="bench",
                              table="facts", snapshot_properties={{}}, options=options)
    elapsed = time.perf_counter() - begun
assert result.rows == {rows}
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
Path({answer!r}).write_text(json.dumps([elapsed, peak, result.bytes]))
"""
PEER = """
from pyarrow.fs import S3FileSystem
folder = Path({target!r})
folder.mkdir()
with duckdb.connect({file!r}, read_only=True) as con:
    con.execute("set memory_limit = '1GB'")
    con.execute("set enable_progress_bar = false")
    begun = time.perf_counter()
    con.execute(f"copy (select * from main.facts) to '{{folder}}' (format parquet, compression zstd, "
                "file_size_bytes '32MiB')").fetchall()
    copied = time.perf_counter() - begun
store = catalog._load_file_io()
begun = time.perf_counter()
for path in sorted(folder.glob("*.parquet")):
    with path.open("rb") as source, store.new_output(f"s3://floe-warehouse/peer/{{path.name}}").create(overwrite=True) as sink:
        while chunk := source.read(8 << 20):
            sink.write(chunk)
uploaded = time.perf_counter() - begun
Path({answer!r}).write_text(json.dumps([copied, uploaded]))
"""
SMALL = """
from floe_dagster.execution.publications import Publications
namespace = "small_" + uuid.uuid4().hex[:8]
con = duckdb.connect()
con.execute("create table small as select i as id, 'row ' || i as label from range(1000) as rows(i)")
def publish(cursor, name):
    return publish_relation(cursor, RelationName("memory", "main", "small"), catalog=catalog, namespace=namespace,
                            table=name, snapshot_properties={{}}, options=options)
times = []
for round in range(2):
    begun = time.perf_counter()
    waiting = [f"t{{n}}" for n in range({tables})]
    done = 0
    with Publications(con.cursor, publish) as publications:
        while done < {tables}:
            while waiting and publications.has_room():
                name = waiting.pop()
                publications.begin(name, name)
            for _name, result in publications.finished():
                assert result.rows == 1000, result
                done += 1
    times.append((time.perf_counter() - begun) / {tables})
Path({answer!r}).write_text(json.dumps(times))
"""
BARE = """
import pyarrow as pa
namespace = "bare_" + uuid.uuid4().hex[:8]
catalog.create_namespace(namespace)
con = duckdb.connect()
con.execute("create table small as select i as id, 'row ' || i as label from range(1000) as rows(i)")
times = []
for round in range(2):
    begun = time.perf_counter()
    for n in range({tables}):
        rows = con.sql("select * from small").to_arrow_table()
        if round == 0:
            catalog.create_table((namespace, f"t{{n}}"), schema=rows.schema).append(rows)
        else:
            catalog.load_table((namespace, f"t{{n}}")).overwrite(rows)
    times.append((time.perf_counter() - begun) / {tables})
Path({answer!r}).write_text(json.dumps(times))
"""


def measure(root: Path) -> list[Row]:
    """Start the services of this benchmark alone and measure all three."""
    root.mkdir(parents=True)
    tools = ROOT / ".floe" / "tools"
    control.build(tools)
    folder = root / "services"
    control.start(folder, tools)
    try:
        os.environ |= read_environment(folder)
        from floe_dagster.platform.bootstrap import Bootstrap
        from floe_dagster.schemas.manifest import PlatformManifest

        manifest = folder / "manifest.yaml"
        Bootstrap(PlatformManifest.model_validate(yaml.safe_load(manifest.read_text()))).run()
        return [*_large(root, manifest), *_small(root, manifest), _ten(root, manifest)]
    finally:
        control.stop(folder)


def _script(root: Path, manifest: Path, name: str, body: str, **values: Any) -> subprocess.Popen[bytes]:
    answer = root / f"{name}.json"
    text = (PRELUDE + body).format(
        manifest=str(manifest), home=str(root / f"home-{name}"), answer=str(answer), **values
    )
    return subprocess.Popen([sys.executable, "-c", text])


def _answer(root: Path, manifest: Path, name: str, body: str, **values: Any) -> Any:
    if _script(root, manifest, name, body, **values).wait():
        raise RuntimeError(f"{name} failed")
    return json.loads((root / f"{name}.json").read_text())


def _large(root: Path, manifest: Path) -> list[Row]:
    import duckdb

    file = root / "large.duckdb"
    with duckdb.connect(str(file)) as con:
        con.execute(
            "create table facts as select i as id, i % 1000 as customer, round(hash(i) % 100000 / 100, 2) as amount, "
            "timestamp '2024-01-01' + to_seconds(i) as happened, 'item ' || (hash(i) % 5000) as item "
            f"from range({ROWS}) as rows(i)"
        ).fetchall()
    ours, copies, uploads, peaks, size = [], [], [], [], 0
    # Single runs differ by a tenth and more, so the medians need some.
    for attempt in range(7):
        target = str(root / f"copy-{attempt}")
        # Neither pays for writing the other's files to the disk.
        os.sync()
        copied, uploaded = _answer(root, manifest, f"peer-{attempt}", PEER, file=str(file), target=target)
        shutil.rmtree(target)
        os.sync()
        elapsed, peak, size = _answer(root, manifest, f"large-{attempt}", LARGE, file=str(file), rows=ROWS)
        ours.append(elapsed)
        copies.append(copied)
        uploads.append(uploaded)
        peaks.append(peak)
    peer = median(copies) + median(uploads)
    ratio, peak = median(ours) / peer, max(peaks) / 2**30
    return [
        Row(
            "publish 20 million rows to MinIO over REST",
            f"{median(ours):.1f} s, {size / 2**20 / median(ours):.0f} MB/s",
            f"{peer:.1f} s (COPY {median(copies):.1f} s, then multipart upload {median(uploads):.1f} s)",
            ratio,
            "<= 1.0",
            ratio <= 1.0,
        ),
        Row("peak memory of it, memory_limit 1 GB", f"{peak:.2f} GiB", "-", None, "<= 1.6 GB", peak <= 1.49),
    ]


def _small(root: Path, manifest: Path) -> list[Row]:
    bare = _answer(root, manifest, "bare", BARE, tables=200)
    ours = _answer(root, manifest, "small", SMALL, tables=200)
    return [
        Row(
            f"200 small tables over REST, {what}",
            f"{mine * 1000:.0f} ms each",
            f"{theirs * 1000:.0f} ms (bare PyIceberg loop)",
            mine / theirs,
            "<= 1.2",
            mine / theirs <= 1.2,
        )
        for what, mine, theirs in zip(("made", "replaced"), ours, bare, strict=True)
    ]


def _ten(root: Path, manifest: Path) -> Row:
    begun = time.perf_counter()
    one = _script(root, manifest, "one", SMALL, tables=20)
    assert one.wait() == 0
    alone = time.perf_counter() - begun
    begun = time.perf_counter()
    processes = [_script(root, manifest, f"ten-{n}", SMALL, tables=20) for n in range(10)]
    failed = sum(process.wait() != 0 for process in processes)
    together = time.perf_counter() - begun
    ratio = together / (10 * alone)
    return Row(
        "ten products at once, 20 tables each, twice",
        f"{together:.1f} s, {failed} failed",
        f"{10 * alone:.1f} s (one after the other)",
        ratio,
        "< 1, none failed",
        ratio < 1 and not failed,
    )
