"""Which manifest counts for a product, who decided that, and whether the platform allows it.

The argument (`--manifest`, `manifest` of the location) comes before `FLOE_MANIFEST`, and that before `floe.yaml`. A platform
that sets `FLOE_MANIFEST` or a pin has chosen: a product that brings a manifest of its own is refused then. A pin names the
digest of the manifests that may count, whoever names them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from floe_dagster.compilation.documents import Document
from floe_dagster.digests import digest_of
from floe_dagster.findings import Finding
from floe_dagster.home import display_path
from floe_dagster.named_manifests import SPEC_FILE, named_manifest

ENVIRONMENT = "FLOE_MANIFEST"
PIN = "FLOE_MANIFEST_SHA256"
ARGUMENT_PIN = "manifest_sha256"
"""What the pin of a location is called, in its component and in `load_product_definitions`."""
_DIGEST = re.compile(r"(?:sha256:)?([0-9a-fA-F]{64})")


@dataclass(frozen=True, slots=True)
class Pin:
    """Digests of the manifests that may count.

    Args:
        name: Where they are set.
        digests: Each `sha256:` and 64 hexadecimal digits.
        faulty: What stands there and is none.
    """

    name: str
    digests: tuple[str, ...]
    faulty: tuple[str, ...] = ()

    def allows(self, digest: str) -> bool:
        """Tell whether a manifest may count. Where something is no digest, none may."""
        return not self.faulty and digest in self.digests


@dataclass(frozen=True, slots=True)
class ManifestChoice:
    """What was asked for one product.

    Args:
        product_dir: The product's folder.
        argument: `--manifest`, or `manifest` of the location; None where there is none.
        environment: `FLOE_MANIFEST`; None where it is not set.
        pins: What is pinned.
    """

    product_dir: Path
    argument: Path | None
    environment: Path | None
    pins: tuple[Pin, ...] = ()

    @classmethod
    def of(
        cls, product_dir: Path, argument: Path | None, environ: Mapping[str, str], pin: str | None = None
    ) -> ManifestChoice:
        """Return what was asked.

        Args:
            product_dir: The product's folder.
            argument: See above.
            environ: Read for `FLOE_MANIFEST` and `FLOE_MANIFEST_SHA256`.
            pin: `manifest_sha256` of the location; None where there is none.
        """
        named = environ.get(ENVIRONMENT, "").strip()
        return cls(product_dir, argument, Path(named) if named else None, tuple(pins_of(environ, pin)))

    @property
    def override(self) -> Path | None:
        """The manifest in place of the one that `floe.yaml` names; None where that one counts."""
        return self.argument if self.argument is not None else self.environment

    @property
    def decided_by(self) -> str:
        """Who named the manifest that counts, for people."""
        if self.argument is not None:
            return "--manifest, or the argument of the location"
        return ENVIRONMENT if self.environment is not None else SPEC_FILE

    def own_manifest(self) -> Path | None:
        """Return the manifest that the product brings though the platform has chosen one; None where there is none.

        A manifest in the product's folder is its own, whether floe.yaml names it or the argument of its location.
        """
        if self.environment is None and not self.pins:
            return None
        named = named_manifest(self.product_dir)
        candidates = [self.product_dir / named] if named else []
        candidates += [self.argument] if self.argument is not None else []
        chosen = os.path.realpath(self.environment) if self.environment is not None else None
        folder = os.path.realpath(self.product_dir)
        for path in candidates:
            real = os.path.realpath(path)
            if Path(real).is_relative_to(folder) and real != chosen:
                return Path(os.path.normpath(path))
        return None

    def refuses(self, layers: Sequence[str]) -> bool:
        """Tell whether the platform refuses a chain of manifests.

        Args:
            layers: SHA-256 of each manifest, the nearest first.
        """
        digest = chain_digest(layers)
        return self.own_manifest() is not None or any(not pin.allows(digest) for pin in self.pins)

    def findings(self, document: Document, layers: Sequence[Document], root: Path) -> list[Finding]:
        """Return what the platform refuses.

        Args:
            document: `floe.yaml`, for positions.
            layers: The manifests that count, the nearest first; none where they cannot be read.
            root: The project root, for display.
        """
        findings = []
        own = self.own_manifest()
        if own is not None:
            line, column = document.position(("platform", "manifest"))
            setters = [ENVIRONMENT] if self.environment is not None else []
            setters += [pin.name for pin in self.pins]
            findings.append(
                Finding(
                    code="own-manifest",
                    severity="error",
                    message=f"the product brings its own manifest, and the platform has chosen one ({', '.join(setters)})",
                    file=document.display,
                    line=line,
                    column=column,
                    field="platform.manifest",
                    found=display_path(own, root),
                    allowed=f"{self.environment}" if self.environment else "the manifest that is pinned",
                    fix="Name the platform's manifest, or leave `platform` out, and remove this one from the product.",
                )
            )
        digest = chain_digest(layer.sha256 for layer in layers) if layers else None
        for pin in self.pins:
            if pin.faulty:
                findings.append(
                    Finding(
                        code="manifest-pin",
                        severity="error",
                        message=f"{pin.name} holds something that is no SHA-256 digest, so no manifest may count",
                        found=", ".join(repr(text) for text in pin.faulty),
                        allowed="digests of 64 hexadecimal digits, separated by commas",
                        fix="`floe-dagster platform digest MANIFEST` prints the digest of a manifest and its parents.",
                    )
                )
            elif digest is not None and not pin.allows(digest):
                findings.append(
                    Finding(
                        code="manifest-not-pinned",
                        severity="error",
                        message=f"the manifest that {self.decided_by} names is not one that {pin.name} pins",
                        file=layers[0].display,
                        line=1,
                        found=f"{digest} ({', '.join(layer.display for layer in layers)})",
                        allowed=", ".join(pin.digests),
                        fix="Use the platform's manifest as it was pinned. Where it changed on purpose, have the platform team set "
                        "the digest that `floe-dagster platform digest` prints.",
                    )
                )
        return findings


def pins_of(environ: Mapping[str, str], pin: str | None = None) -> list[Pin]:
    """Return what is pinned; each pin has to allow the manifest.

    Args:
        environ: Read for `FLOE_MANIFEST_SHA256`.
        pin: `manifest_sha256` of the location; None where there is none.
    """
    texts = {PIN: environ.get(PIN, ""), ARGUMENT_PIN: pin or ""}
    return [_pin(name, text) for name, text in texts.items() if text.strip()]


def chain_digest(layers: Iterable[str]) -> str:
    """Return the digest of a manifest with all its parents: whichever of them changes, it changes.

    Args:
        layers: SHA-256 of each manifest in hexadecimal digits, the nearest first.
    """
    return digest_of("\n".join(layers).encode())


def _pin(name: str, text: str) -> Pin:
    parts = [part for part in re.split(r"[\s,]+", text) if part]
    found = [_DIGEST.fullmatch(part) for part in parts]
    return Pin(
        name,
        tuple(f"sha256:{match[1].lower()}" for match in found if match),
        tuple(part[:80] for part, match in zip(parts, found, strict=True) if not match),
    )
