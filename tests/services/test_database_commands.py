"""What docs/operations.md tells to do with a PostgreSQL, done with one."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.services.postgresql import Postgresql

PAGE = (ROOT / "docs" / "operations.md").read_text()


@pytest.fixture
def database() -> Iterator[Postgresql]:
    made = Postgresql("dagster", "first", "dagster")
    yield made
    made.stop()


def test_lineage_is_backed_up_and_restored_with_its_owner(database: Postgresql, tmp_path: Path) -> None:
    (dump,) = re.findall(r"sh -ec '([^']*pg_dump[^']*)' > marquez\.dump", PAGE)
    (restore,) = re.findall(r"sh -ec \\\n\s*'([^']*pg_restore[^']*)' < marquez\.dump", PAGE)
    pod = {"POSTGRES_USER": "dagster", "POSTGRES_PASSWORD": "first", "MARQUEZ_DB": "marquez"}
    environment = {**database.environment, **pod}
    # As the first start of the release makes it, and as Marquez fills it.
    database.sql("CREATE ROLE marquez LOGIN PASSWORD 'lineage'")
    database.sql("CREATE DATABASE marquez OWNER marquez")
    own = {"PGUSER": "marquez", "PGPASSWORD": "lineage"}
    database.sql("CREATE TABLE runs (id int PRIMARY KEY); INSERT INTO runs VALUES (1), (2)", "marquez", **own)
    with (tmp_path / "marquez.dump").open("wb") as file:
        subprocess.run(["sh", "-ec", dump], env=environment, stdout=file, check=True)

    database.sql("DROP DATABASE marquez")
    database.sql("CREATE DATABASE marquez OWNER marquez")
    # The new one has started meanwhile, and made its tables.
    database.sql("CREATE TABLE runs (id int PRIMARY KEY)", "marquez", **own)
    with (tmp_path / "marquez.dump").open("rb") as file:
        subprocess.run(["sh", "-ec", restore], env=environment, stdin=file, check=True)
    assert database.sql("SELECT count(*) FROM runs", "marquez", **own) == "2"
    database.sql("INSERT INTO runs VALUES (3)", "marquez", **own)


def test_a_second_role_works_as_the_first_and_outlives_its_password(database: Postgresql) -> None:
    (statements,) = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    assert "ALTER ROLE dagster PASSWORD NULL" in PAGE
    database.sql("CREATE TABLE theirs (id int)")
    for statement in re.sub(r"--.*", "", statements).replace("'…'", "'second'").strip().split(";")[:-1]:
        database.sql(statement)
    second = {"PGUSER": "dagster_b", "PGPASSWORD": "second"}
    database.sql("ALTER TABLE theirs ADD COLUMN more int; CREATE TABLE ours (id int)", **second)
    owners = database.sql("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'")
    assert owners == "dagster"
    database.sql("ALTER ROLE dagster PASSWORD NULL", **second)
    with pytest.raises(AssertionError, match="password authentication failed"):
        database.sql("SELECT 1")
    # And back again, with the next one.
    database.sql("ALTER ROLE dagster PASSWORD 'third'", **second)
    assert database.sql("INSERT INTO ours VALUES (1) RETURNING id", PGPASSWORD="third").startswith("1")
