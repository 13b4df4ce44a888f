"""`python -m tests.receivers`."""

from __future__ import annotations

from tests.receivers.kept import main

raise SystemExit(main())
