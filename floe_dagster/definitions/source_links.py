"""Links from a finding or an asset to its line in the repository that the product names."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from urllib.parse import quote, urlsplit

from floe_dagster.home import find_project_root


@dataclass(frozen=True)
class SourceLinks:
    """Where the lines of a product's files are shown on the web, where that is known.

    Args:
        repository: `repository` of `floe.yaml`; only http and https addresses can be linked to.
        project_root: The folder that findings' files are relative to.
    """

    repository: str | None
    project_root: Path

    @classmethod
    def of_product(cls, repository: str | None, product_dir: Path) -> SourceLinks:
        """Return the links of a product by its folder."""
        return cls(repository, find_project_root(product_dir))

    def url(self, file: str, line: int | None = None) -> str | None:
        """Return the address of a line; None where the repository is not on the web or the file not in it.

        Args:
            file: Relative to the project root, with `/`.
            line: Counted from 1.
        """
        address = urlsplit((self.repository or "").removesuffix(".git"))
        if address.scheme not in ("http", "https") or not address.netloc or os.path.isabs(file):
            return None
        blob = "/-/blob" if "gitlab" in address.netloc else "/blob"
        path = quote((self._prefix / file).as_posix())
        anchor = f"#L{line}" if line else ""
        # Without user information: a token in the address is nobody's business.
        host = address.netloc.rpartition("@")[2]
        return f"{address.scheme}://{host}{address.path.rstrip('/')}{blob}/HEAD/{path}{anchor}"

    def markdown(self, file: str, line: int | None = None) -> str:
        """Return `file:line`, linked where there is an address."""
        text = f"{file}:{line}" if line else file
        address = self.url(file, line)
        return f"[{text}]({address})" if address and text else text

    @cached_property
    def _prefix(self) -> Path:
        # Looked for on the disk once, and not for every link.
        for folder in (self.project_root, *self.project_root.parents):
            if (folder / ".git").exists():
                return self.project_root.relative_to(folder)
        return Path()
