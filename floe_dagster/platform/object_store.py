"""An S3-compatible store: the bucket, and on MinIO the user and the policy that fit it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from floe_dagster.credentials import resolve
from floe_dagster.platform.waiting import PlatformError, no_answer_reason

_ANSWER_SECONDS = 20.0
WAREHOUSE_PREFIX = "warehouse/"
STATE_PREFIX = "dagster/"
"""Where Dagster keeps compiled state and logs: beside the warehouse, with keys that cannot reach it."""


class ObjectStore:
    """The store of `plugins.storage`.

    Args:
        config: Settings of the plugin, without secrets.
        access_key: Who asks.
        secret_key: Its secret.
    """

    def __init__(self, config: Mapping[str, Any], access_key: str | None, secret_key: str | None) -> None:
        import urllib3
        from minio import Minio

        self.bucket = str(config["bucket"])
        self.region = str(config.get("region") or "us-east-1")
        self.address = str(config.get("endpoint") or f"https://s3.{self.region}.amazonaws.com")
        parts = urlsplit(self.address)
        pool = urllib3.PoolManager(
            timeout=urllib3.Timeout(
                connect=10.0, read=float(config.get("timeout_seconds") or _ANSWER_SECONDS)
            ),
            retries=urllib3.Retry(total=2, backoff_factor=0.3, status_forcelist=(500, 502, 503, 504)),
        )
        self._pool = pool
        self.client = Minio(
            parts.netloc,
            access_key=access_key,
            secret_key=secret_key,
            secure=parts.scheme == "https",
            region=self.region,
            http_client=pool,
        )
        self._keys = (access_key or "", secret_key or "")
        self._admin_options: dict[str, Any] = {
            "endpoint": parts.netloc,
            "region": self.region,
            "secure": parts.scheme == "https",
            "http_client": pool,
        }

    def admin(self) -> Any:
        """Return MinIO's administration client."""
        from minio import MinioAdmin
        from minio.credentials.providers import StaticProvider

        return MinioAdmin(credentials=StaticProvider(*self._keys), **self._admin_options)

    def answers(self) -> bool:
        """Tell whether the store is there, whoever asks.

        Raises:
            OSError: Nothing answers.
        """
        return self.server_date() is not None

    def server_date(self) -> str | None:
        """Return the `Date` header of any answer.

        Raises:
            OSError: Nothing answers.
        """
        import urllib3

        try:
            answer = self._pool.request(
                "GET", self.address, retries=False, timeout=10.0, preload_content=False
            )
            # Whatever it says: the headers are all that is asked for.
            answer.close()
        except urllib3.exceptions.HTTPError as error:
            raise OSError(str(error)) from error
        # A gateway in front of a store that is away answers in its place.
        return answer.headers.get("Date", "") if answer.status < 500 else None

    def bucket_exists(self) -> bool:
        """Tell whether the bucket exists and may be seen."""
        return bool(self._explained("look at the bucket", lambda: self.client.bucket_exists(self.bucket)))

    def make_bucket(self) -> None:
        """Make the bucket."""
        self._explained("make the bucket", lambda: self.client.make_bucket(self.bucket, location=self.region))

    def write_and_remove(self, name: str) -> None:
        """Write an object of a few bytes and remove it.

        Raises:
            PlatformError: It cannot be done.
        """
        import io

        data = b"floe-dagster platform check"
        self._explained(
            "write", lambda: self.client.put_object(self.bucket, name, io.BytesIO(data), len(data))
        )
        self._explained("delete", lambda: self.client.remove_object(self.bucket, name))

    def is_usable(self, prefix: str = WAREHOUSE_PREFIX) -> bool:
        """Tell whether these keys may list a part of the bucket.

        Args:
            prefix: The part.

        Raises:
            PlatformError: The store does not answer, so nobody can tell.
        """
        from minio.error import S3Error

        def look() -> bool:
            try:
                next(iter(self.client.list_objects(self.bucket, prefix=prefix)), None)
            except (S3Error, ValueError):
                return False
            return True

        return bool(self._explained("list the bucket", look))

    def _explained(self, what: str, call: Any) -> Any:
        import urllib3
        from minio.error import MinioException, S3Error

        place = f"{self.address}/{self.bucket}"
        try:
            return call()
        except S3Error as error:
            advice = {
                "InvalidAccessKeyId": "the access key id is unknown; check plugins.storage.config.access_key_id",
                "SignatureDoesNotMatch": "the secret access key is wrong; check plugins.storage.config.secret_access_key",
                "AccessDenied": "access is denied; the keys need read, write and list on this bucket",
                "NoSuchBucket": "the bucket does not exist; run `floe-dagster platform bootstrap`",
                "RequestTimeTooSkewed": "the clocks of this machine and of the store differ by more than 15 minutes",
            }.get(str(error.code), f"{error.code}: {error.message}")
            raise PlatformError(f"the store refuses to {what} ({place}): {advice}") from None
        except ValueError as error:
            raise PlatformError(f"the store cannot {what} ({place}): {error}") from None
        except (MinioException, urllib3.exceptions.HTTPError, OSError) as error:
            raise PlatformError(
                f"the store at {self.address} does not answer: {no_answer_reason(error)}"
            ) from None


def own_keys(storage: Any, environ: Mapping[str, str]) -> tuple[str | None, str | None]:
    """Return the keys that `plugins.storage` of a manifest names; None where it names none.

    Args:
        storage: A plugin of type s3 or minio.
        environ: Where its references are looked up.

    Raises:
        MissingCredentialError: A variable that is referred to is not set.
    """
    config = storage.config
    key = resolve(config.access_key_id, "plugins.storage.config.access_key_id", environ)
    reference = config.secret_access_key.model_dump() if config.secret_access_key else None
    return key, resolve(reference, "plugins.storage.config.secret_access_key", environ)


OBJECT_ACTIONS = (
    "s3:AbortMultipartUpload",
    "s3:DeleteObject",
    "s3:GetObject",
    "s3:ListMultipartUploadParts",
    "s3:PutObject",
)


def bucket_policy(bucket: str) -> dict[str, Any]:
    """Return the least that publication, restoring and maintenance need, as an S3 policy."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads"],
                "Resource": [f"arn:aws:s3:::{bucket}"],
            },
            {
                "Effect": "Allow",
                "Action": list(OBJECT_ACTIONS),
                "Resource": [f"arn:aws:s3:::{bucket}/*"],
            },
        ],
    }


def state_policy(bucket: str) -> dict[str, Any]:
    """Return the least that Dagster's compiled state and logs need, as an S3 policy: nothing of the warehouse."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["s3:GetBucketLocation"],
                "Resource": [f"arn:aws:s3:::{bucket}"],
            },
            {
                "Effect": "Allow",
                "Action": ["s3:ListBucket"],
                "Resource": [f"arn:aws:s3:::{bucket}"],
                "Condition": {"StringLike": {"s3:prefix": [f"{STATE_PREFIX}*"]}},
            },
            {
                "Effect": "Allow",
                "Action": list(OBJECT_ACTIONS),
                "Resource": [f"arn:aws:s3:::{bucket}/{STATE_PREFIX}*"],
            },
        ],
    }


def same_policy(one: Any, other: Any) -> bool:
    """Tell whether two policies say the same, whatever the order of actions."""

    def normal(policy: Any) -> Any:
        if isinstance(policy, str):
            policy = json.loads(policy)
        return sorted(
            (
                statement.get("Effect"),
                tuple(sorted(_listed(statement.get("Action")))),
                tuple(sorted(_listed(statement.get("Resource")))),
                json.dumps(statement.get("Condition") or {}, sort_keys=True),
            )
            for statement in policy.get("Statement", ())
        )

    try:
        return bool(normal(one) == normal(other))
    except (AttributeError, ValueError, TypeError):
        return False


def _listed(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value or ())
