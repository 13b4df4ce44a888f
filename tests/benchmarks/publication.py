"""Publication of a small and of a large table."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from statistics import median

from tests.benchmarks.projects import seconds
from tests.benchmarks.report import Row

ROWS = 20_000_000
LARGE = """
import json, os, resource, time
from pathlib import Path
import duckdb
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.catalogs import open_catalog
from floe_dagster.iceberg.publication import RelationName, publish_relation

home = FloeHome(Path({home!r}))
with duckdb.connect({file!r}, read_only=True) as con:
    con.execute("set memory_limit = '1GB'")
    catalog = open_catalog(None, None, home=home)
    begun = time.perf_counter()
    result = publish_relation(con, RelationName('large', 'main', 'facts'), catalog=catalog, namespace='bench',
                              table='facts', snapshot_properties={{}})
    elapsed = time.perf_counter() - begun
assert result.rows == {rows}
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
Path({answer!r}).write_text(json.dumps([elapsed, peak]))
"""
COPY = """
import json, time
from pathlib import Path
import duckdb

with duckdb.connect({file!r}, read_only=True) as con:
    con.execute("set memory_limit = '1GB'")
    begun = time.perf_counter()
    con.execute("copy (select * from main.facts) to '{target}' (format parquet, compression zstd)").fetchall()
    elapsed = time.perf_counter() - begun
Path({answer!r}).write_text(json.dumps([elapsed, 0]))
"""


def measure(root: Path) -> list[Row]:
    """Publish one small table many times, and 20 million rows against DuckDB's own COPY."""
    return [_small(root / "small-table"), *_large(root / "large-table")]


def _small(root: Path) -> Row:
    import duckdb

    from floe_dagster.home import FloeHome
    from floe_dagster.iceberg.catalogs import open_catalog
    from floe_dagster.iceberg.publication import RelationName, publish_relation

    catalog = open_catalog(None, None, home=FloeHome(root))
    times = []
    with duckdb.connect() as con:
        con.execute("create table small as select i as id, 'row ' || i as label from range(1000) as rows(i)")
        for _ in range(21):
            begun = time.perf_counter()
            publish_relation(
                con,
                RelationName("memory", "main", "small"),
                catalog=catalog,
                namespace="bench",
                table="small",
                snapshot_properties={},
            )
            times.append(time.perf_counter() - begun)
    elapsed = median(times[1:])
    return Row(
        "publication of one small table", f"{elapsed * 1000:.0f} ms", "-", None, "<= 100 ms", elapsed <= 0.1
    )


def _large(root: Path) -> list[Row]:
    import duckdb

    root.mkdir(parents=True)
    file, answer = root / "large.duckdb", root / "answer.json"
    with duckdb.connect(str(file)) as con:
        con.execute(
            "create table facts as select i as id, i % 1000 as customer, round(hash(i) % 100000 / 100, 2) as amount, "
            "timestamp '2024-01-01' + to_seconds(i) as happened, 'item ' || (hash(i) % 5000) as item "
            f"from range({ROWS}) as rows(i)"
        ).fetchall()
    ours, theirs, peaks = [], [], []
    for attempt in range(3):
        names = {"file": str(file), "answer": str(answer), "rows": ROWS}
        home, target = root / f"home-{attempt}", root / f"copy-{attempt}.parquet"
        seconds([sys.executable, "-c", COPY.format(target=target, **names)], {})
        theirs.append(json.loads(answer.read_text())[0])
        seconds([sys.executable, "-c", LARGE.format(home=str(home), **names)], {})
        elapsed, peak = json.loads(answer.read_text())
        ours.append(elapsed)
        peaks.append(peak)
    ratio = median(ours) / median(theirs)
    peak = max(peaks) / 2**30
    return [
        Row(
            "publish 20 million rows x 5 columns",
            f"{median(ours):.1f} s",
            f"{median(theirs):.1f} s (DuckDB COPY, zstd)",
            ratio,
            "<= 1.1",
            ratio <= 1.1,
        ),
        Row("peak memory of it, memory_limit 1 GB", f"{peak:.2f} GiB", "-", None, "<= 1.6 GB", peak <= 1.49),
    ]
