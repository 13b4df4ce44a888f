"""Keys that a catalog gives out, with the real store: MinIO's STS makes them, for one prefix each, and MinIO looks at them.

The scenarios are those of tests/integration/iceberg/test_vending.py; here every request and answer of the catalog is held to
the published document as well, so that what the quick tests believe of store and protocol is not our own invention.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.services import control
from floe_dagster.home import FloeHome
from floe_dagster.iceberg.errors import NotUsableError
from tests.integration.iceberg import test_vending as scenarios
from tests.rest_server.catalog import Given
from tests.rest_server.lending import WAYS, Lending, Way, lending, nothing
from tests.services.conftest import Services

SPECIFICATION = "openapi/iceberg-rest-catalog-1.4.1.yaml"


class MinioStore:
    """MinIO, whose STS gives sessions of the bucket's own user.

    Args:
        services: Of this test process.
    """

    def __init__(self, services: Services) -> None:
        self.endpoint: str = services.state["minio"]
        self._environment = services.environment
        self._user: str = services.manifest["plugins"]["storage"]["config"]["access_key_id"]

    def administrator(self) -> dict[str, str]:
        """Return PyIceberg's properties of MinIO's root user."""
        return {
            "s3.endpoint": self.endpoint,
            "s3.region": "us-east-1",
            "s3.force-virtual-addressing": "false",
            "s3.access-key-id": self._environment["MINIO_ROOT_USER"],
            "s3.secret-access-key": self._environment["MINIO_ROOT_PASSWORD"],
        }

    def lend(self, *prefixes: str) -> dict[str, str]:
        """Return a session's keys, as Polaris asks for them: AssumeRole with a policy for some prefixes."""
        from minio.credentials import AssumeRoleProvider

        objects = [f"arn:aws:s3:::{prefix.partition('://')[2]}/*" for prefix in prefixes]
        policy = {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload"],
                    "Resource": objects,
                },
                {
                    "Effect": "Allow",
                    "Action": ["s3:ListBucket"],
                    "Resource": ["arn:aws:s3:::*"],
                    "Condition": {
                        "StringLike": {
                            "s3:prefix": [
                                f"{prefix.partition('://')[2].partition('/')[2]}/*" for prefix in prefixes
                            ]
                        }
                    },
                },
            ],
        }
        made = AssumeRoleProvider(
            sts_endpoint=self.endpoint,
            access_key=self._user,
            secret_key=self._environment["MINIO_SECRET_ACCESS_KEY"],
            policy=json.dumps(policy),
            region="us-east-1",
        ).retrieve()
        return {
            "s3.access-key-id": made.access_key,
            "s3.secret-access-key": made.secret_key,
            "s3.session-token": str(made.session_token),
        }


@pytest.fixture(scope="module")
def held_to_the_document() -> Callable[..., list[str]]:
    """Holds requests and answers to the document that FLOE_SPECS has."""
    from openapi_core import OpenAPI
    from openapi_core.testing import MockRequest, MockResponse

    folder = os.environ.get("FLOE_SPECS", "")
    path = Path(folder) / SPECIFICATION
    if not folder or not path.is_file():
        pytest.fail(
            f"FLOE_SPECS has to name a folder with {SPECIFICATION}: `spec/` of github.com/apache/polaris at 1.4.1"
        )
    # Through JSON, because status codes are numbers in YAML and text in OpenAPI.
    document = json.loads(json.dumps(yaml.safe_load(path.read_text())))
    document["servers"] = [{"url": "/"}]
    api = OpenAPI.from_dict(document)

    def hold(
        method: str, path: str, headers: dict[str, str], body: bytes, status: int, said: Any
    ) -> list[str]:
        place, _, query = path.partition("?")
        request = MockRequest(
            "http://localhost",
            method.lower(),
            place,
            args=dict(part.partition("=")[::2] for part in query.split("&")) if query else None,
            data=body or None,
            headers={"Authorization": "Bearer x"},
            content_type=headers.get("content-type", "application/json").partition(";")[0],
        )
        problems = []
        try:
            api.validate_request(request)
            if status < 400 and said is not None:
                api.validate_response(request, MockResponse(json.dumps(said).encode(), status))
        except Exception as error:
            problems.append(f"{method} {place} {status}: {error!r} {error.__cause__!r}"[:800])
        return problems

    return hold


@pytest.fixture
def lent(
    services: Services,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    held_to_the_document: Callable[..., list[str]],
) -> Iterator[Lending]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with lending(tmp_path / "server", MinioStore(services), control.BUCKET) as made:
        # A warehouse of this test alone.
        made.catalog.catalog.properties["warehouse"] += f"/{tmp_path.name}"
        made.catalog.hold_to = held_to_the_document
        yield made
        assert made.catalog.violations == []


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_table_lives_on_the_keys_that_the_server_gives(lent: Lending, home: FloeHome, way: Way) -> None:
    scenarios.test_a_table_is_made_replaced_extended_and_read_with_what_the_server_gives(lent, home, way)


def test_keys_of_one_table_open_no_other(lent: Lending, home: FloeHome) -> None:
    catalog = lent.open(home)
    lent.publish(catalog, home, "select 1 as id")
    other = catalog.load_table((scenarios.NAMESPACE, "orders")).location().replace("orders", "others")
    with pytest.raises(OSError, match="ACCESS_DENIED"):
        catalog.load_table((scenarios.NAMESPACE, "orders")).io.new_input(f"{other}/data/x").exists()


def test_one_table_is_given_keys_and_another_is_not(
    lent: Lending, home: FloeHome, services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    lent.ways["others"] = nothing
    catalog = lent.open(home)
    lent.publish(catalog, home, "select 1 as id")
    with pytest.raises(NotUsableError, match="credential_vending"):
        lent.publish(catalog, home, "select 1 as id", table="others")
    # The identity of the process.
    monkeypatch.setenv(
        "AWS_ACCESS_KEY_ID", services.manifest["plugins"]["storage"]["config"]["access_key_id"]
    )
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", services.environment["MINIO_SECRET_ACCESS_KEY"])
    lent.publish(catalog, home, "select 1 as id", table="others")
    assert scenarios.rows(catalog, "others") == scenarios.rows(catalog, "orders") == [(1,)]


def test_keys_that_the_store_does_not_know_are_told_apart(lent: Lending, home: FloeHome) -> None:
    def unknown(lending: Lending, location: str) -> Given:
        return Given({}, ((location, {**lending.lend(location), "s3.secret-access-key": "x" * 40}),))

    lent.ways["*"] = unknown
    with pytest.raises(NotUsableError, match="does not accept the keys") as refused:
        lent.publish(lent.open(home), home, "select 1 as id")
    assert not [secret for secret in lent.lent if secret in str(refused.value)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"config": {"s3.session-token-expires-at-ms": 1764547200000}},
        {"storage-credentials": [{"config": {}}]},
        {"storage-credentials": [{"prefix": "s3://b/t"}]},
        {"storage-credentials": {"s3://b/t": {}}},
        {"metadata": None},
    ],
    ids=str,
)
def test_the_document_knows_what_is_no_answer(
    lent: Lending, home: FloeHome, held_to_the_document: Callable[..., list[str]], wrong: dict[str, Any]
) -> None:
    catalog = lent.open(home)
    lent.publish(catalog, home, "select 1 as id")
    path = "/v1/floe/namespaces/shop/tables/orders"
    said = lent.catalog._loaded(lent.catalog.catalog.load_table((scenarios.NAMESPACE, "orders")), True)
    assert held_to_the_document("GET", path, {}, b"", 200, said) == []
    assert len(held_to_the_document("GET", path, {}, b"", 200, {**said, **wrong})) == 1
