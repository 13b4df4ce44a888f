"""As much of S3 as PyArrow's file system asks for: objects in memory, and identities that may reach some prefixes."""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.receivers.serving import serving

BUCKET = "warehouse-bucket"
REGION = "us-east-1"
_SIGNED = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<id>[^/]+)/(?P<day>\d+)/(?P<region>[^/]+)/s3/aws4_request, ?"
    r"SignedHeaders=(?P<headers>[^,]+), ?Signature=(?P<signature>[0-9a-f]+)"
)


class Store(Protocol):
    """A store whose keys a catalog gives out."""

    endpoint: str

    def administrator(self) -> dict[str, str]:
        """Return PyIceberg's properties of somebody who may do everything."""

    def lend(self, *prefixes: str) -> dict[str, str]:
        """Return the keys of a session that may use what lies under some prefixes, and nothing else.

        Args:
            prefixes: Locations, such as `s3://bucket/warehouse/shop/orders`.
        """


@dataclass(frozen=True)
class Identity:
    """Who asks.

    Args:
        access_key: Its public part.
        secret: Signs.
        token: Of a session; none where it is not one.
        prefixes: Of bucket and key, which it may reach.
    """

    access_key: str
    secret: str
    token: str | None
    prefixes: tuple[str, ...]


@dataclass
class KeyedStore:
    """The store, and what it was asked."""

    endpoint: str = ""
    objects: dict[str, bytes] = field(default_factory=dict)
    """By bucket and key."""
    identities: dict[str, Identity] = field(default_factory=dict)
    used: list[tuple[str, str]] = field(default_factory=list)
    """Access key, and bucket with key, of each request that was served."""
    refused: list[tuple[str, str, str]] = field(default_factory=list)
    """Access key, S3's code, and bucket with key, of each request that was not."""
    regions: set[str] = field(default_factory=set)
    """That requests were signed for."""
    _uploads: dict[str, dict[int, bytes]] = field(default_factory=dict)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def identity(self, *prefixes: str, session: bool = True) -> Identity:
        """Make an identity that may reach some prefixes of bucket and key."""
        made = Identity(
            f"LENT{secrets.token_hex(8).upper()}",
            f"lent-secret-{secrets.token_hex(12)}",
            f"lent-token-{secrets.token_hex(24)}" if session else None,
            prefixes,
        )
        self.identities[made.access_key] = made
        return made

    def administrator(self) -> dict[str, str]:
        """See `Store`."""
        return {
            "s3.endpoint": self.endpoint,
            "s3.region": REGION,
            "s3.force-virtual-addressing": "false",
            **as_properties(self.identity("", session=False)),
        }

    def lend(self, *prefixes: str) -> dict[str, str]:
        """See `Store`."""
        return as_properties(self.identity(*(prefix.partition("://")[2] for prefix in prefixes)))

    def answer(
        self, method: str, path: str, headers: dict[str, str], body: bytes
    ) -> tuple[int, bytes, dict[str, str]]:
        """Answer one request."""
        with self._lock:
            place = unquote(urlsplit(path).path).lstrip("/")
            query = dict(parse_qsl(urlsplit(path).query, keep_blank_values=True))
            if "list-type" in query:
                place = f"{place.rstrip('/')}/{query.get('prefix', '')}"
            access_key, problem = self._who(method, path, headers, place)
            if problem:
                self.refused.append((access_key, problem, place))
                text = f"<Error><Code>{problem}</Code><Message>{problem} was said</Message></Error>"
                return 403, text.encode(), {}
            self.used.append((access_key, place))
            return self._serve(method, place, query, headers, body)

    def _who(self, method: str, path: str, headers: dict[str, str], place: str) -> tuple[str, str | None]:
        found = _SIGNED.fullmatch(headers.get("authorization", ""))
        if found is None:
            return "", "AccessDenied"
        access_key = found["id"]
        self.regions.add(found["region"])
        identity = self.identities.get(access_key)
        if identity is None:
            return access_key, "InvalidAccessKeyId"
        if headers.get("x-amz-security-token") != identity.token:
            return access_key, "InvalidToken"
        if _signature(identity, found, method, self.endpoint + path, headers) != found["signature"]:
            return access_key, "SignatureDoesNotMatch"
        if not any(place.startswith(prefix) for prefix in identity.prefixes):
            return access_key, "AccessDenied"
        return access_key, None

    def _serve(
        self, method: str, place: str, query: dict[str, str], headers: dict[str, str], body: bytes
    ) -> tuple[int, bytes, dict[str, str]]:
        if "list-type" in query:
            return 200, self._listed(place, query), {"Content-Type": "application/xml"}
        if method == "POST" and "uploads" in query:
            upload = secrets.token_hex(8)
            self._uploads[upload] = {}
            bucket, _, key = place.partition("/")
            said = (
                f"<InitiateMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{escape(key)}</Key>"
                f"<UploadId>{upload}</UploadId></InitiateMultipartUploadResult>"
            )
            return 200, said.encode(), {}
        if method == "PUT" and "partNumber" in query:
            self._uploads[query["uploadId"]][int(query["partNumber"])] = _plain(headers, body)
            return 200, b"", {"ETag": _etag(body)}
        if method == "POST" and "uploadId" in query:
            parts = self._uploads.pop(query["uploadId"])
            self.objects[place] = b"".join(content for _number, content in sorted(parts.items()))
            bucket, _, key = place.partition("/")
            said = (
                f"<CompleteMultipartUploadResult><Bucket>{bucket}</Bucket><Key>{escape(key)}</Key>"
                f"<ETag>{_etag(self.objects[place])}</ETag></CompleteMultipartUploadResult>"
            )
            return 200, said.encode(), {}
        if method == "DELETE":
            if "uploadId" in query:
                self._uploads.pop(query["uploadId"], None)
            else:
                self.objects.pop(place, None)
            return 204, b"", {}
        if method == "PUT":
            self.objects[place] = _plain(headers, body)
            return 200, b"", {"ETag": _etag(body)}
        content = self.objects.get(place)
        if content is None:
            return 404, b"<Error><Code>NoSuchKey</Code><Message>not there</Message></Error>", {}
        described = {"ETag": _etag(content), "Last-Modified": formatdate(0, usegmt=True)}
        if method == "HEAD":
            return 200, content, described
        if span := re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", "")):
            first, last = int(span[1]), min(int(span[2] or len(content) - 1), len(content) - 1)
            described["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            return 206, content[first : last + 1], described
        return 200, content, described

    def _listed(self, place: str, query: dict[str, str]) -> bytes:
        bucket = place.partition("/")[0]
        delimiter, prefix = query.get("delimiter", ""), query.get("prefix", "")
        keys, folders = [], set()
        for name in sorted(self.objects):
            key = name.removeprefix(f"{bucket}/")
            if not name.startswith(f"{bucket}/") or not key.startswith(prefix):
                continue
            rest = key[len(prefix) :]
            if delimiter and delimiter in rest:
                folders.add(prefix + rest.partition(delimiter)[0] + delimiter)
            else:
                keys.append(key)
        listed = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{len(self.objects[f'{bucket}/{key}'])}</Size>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for key in keys
        )
        listed += "".join(
            f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>"
            for folder in sorted(folders)
        )
        return (
            f"<ListBucketResult><Name>{bucket}</Name><Prefix>{escape(prefix)}</Prefix>"
            f"<KeyCount>{len(keys) + len(folders)}</KeyCount><IsTruncated>false</IsTruncated>{listed}</ListBucketResult>"
        ).encode()


def as_properties(identity: Identity) -> dict[str, str]:
    """Return an identity in the words of Iceberg's clients."""
    keys = {"s3.access-key-id": identity.access_key, "s3.secret-access-key": identity.secret}
    return keys | ({"s3.session-token": identity.token} if identity.token else {})


@contextlib.contextmanager
def keyed_store() -> Iterator[KeyedStore]:
    """Serve a store of this test alone."""
    store = KeyedStore()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def log_message(self, *arguments: Any) -> None:
            """Say nothing."""

        def _handle(self) -> None:
            body = self._body()
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, content, more = store.answer(self.command, self.path, headers, body)
            self.send_response(status)
            for name, value in more.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            if self.command != "HEAD" and status != 204:
                self.wfile.write(content)

        def _body(self) -> bytes:
            if "chunked" not in (self.headers.get("Transfer-Encoding") or ""):
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle

    with serving(Handler) as address:
        store.endpoint = address
        yield store


class _Resigning(S3SigV4Auth):  # type: ignore[misc]  # botocore has no types
    """Signs a request again, as AWS' own Python client would."""

    payload_hash = ""

    def payload(self, request: Any) -> str:
        """Return what the client said of the body: a stream says that it is not signed."""
        return self.payload_hash


def _signature(
    identity: Identity, found: re.Match[str], method: str, url: str, headers: dict[str, str]
) -> str:
    signed = {name: headers.get(name, "") for name in found["headers"].split(";")}
    request = AWSRequest(method, url, headers=signed)
    request.context["timestamp"] = headers["x-amz-date"]
    # The session token is one of the signed headers already.
    signer = _Resigning(Credentials(identity.access_key, identity.secret), "s3", found["region"])
    signer.payload_hash = headers.get("x-amz-content-sha256", "")
    text = signer.string_to_sign(request, signer.canonical_request(request))
    return str(signer.signature(text, request))


def _plain(headers: dict[str, str], body: bytes) -> bytes:
    """Return what was sent, without the frames of a signed stream (`aws-chunked`)."""
    if "aws-chunked" not in headers.get("content-encoding", ""):
        return body
    plain, rest = b"", body
    while rest:
        head, _, rest = rest.partition(b"\r\n")
        size = int(head.split(b";")[0], 16)
        if not size:
            break
        plain, rest = plain + rest[:size], rest[size + 2 :]
    return plain


def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
