"""One trace as a tree, that tests look through and failures print."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tests.receivers.telemetry import Span


class Tree:
    """A trace whose spans hang together.

    Raises:
        AssertionError: They do not: no root or several, a parent that is not there, a span that came twice.
    """

    def __init__(self, spans: Iterable[Span]) -> None:
        self.spans = sorted(spans, key=lambda span: span.start)
        self._by_id = {span.span_id: span for span in self.spans}
        self._children: dict[str, list[Span]] = {}
        for span in self.spans:
            self._children.setdefault(span.parent_id, []).append(span)
        problems = list(self._problems())
        assert not problems, "\n".join([*problems, str(self)])
        self.root = self._children[""][0]

    def children(self, span: Span) -> list[Span]:
        """Return the spans right under a span, in order of their start."""
        return list(self._children.get(span.span_id, ()))

    def parent(self, span: Span) -> Span | None:
        """Return the span that a span is under."""
        return self._by_id.get(span.parent_id)

    def ancestors(self, span: Span) -> list[Span]:
        """Return the spans above a span, the nearest first."""
        found = []
        above = self.parent(span)
        while above is not None:
            found.append(above)
            above = self.parent(above)
        return found

    def named(self, name: str) -> list[Span]:
        """Return the spans of a name."""
        return [span for span in self.spans if span.name == name]

    def one(self, name: str, **attributes: object) -> Span:
        """Return the only span of a name that has these attributes; their dots are written as two underscores."""
        wanted = {key.replace("__", "."): value for key, value in attributes.items()}
        found = [span for span in self.named(name) if wanted.items() <= _hashable(span).items()]
        assert len(found) == 1, f"{len(found)} spans are called {name} with {wanted}:\n{self}"
        return found[0]

    def walk(self) -> Iterator[tuple[int, Span]]:
        """Return every span with its depth, parents first."""
        yield from self._walk("", 0, set())

    def __str__(self) -> str:
        seen: set[str] = set()
        lines = [_line(depth, span) for depth, span in self._walk("", 0, seen)]
        lost = [span for span in self.spans if span.span_id not in seen]
        if lost:
            lines += ["not under a root:", *(f"{_line(1, span)}  parent={span.parent_id}" for span in lost)]
        return "\n".join(lines)

    def _walk(self, parent_id: str, depth: int, seen: set[str]) -> Iterator[tuple[int, Span]]:
        for span in self._children.get(parent_id, ()):
            if span.span_id not in seen:
                seen.add(span.span_id)
                yield depth, span
                yield from self._walk(span.span_id, depth + 1, seen)

    def _problems(self) -> Iterator[str]:
        if not self.spans:
            yield "the trace has no span"
            return
        roots = self._children.get("", [])
        if len(roots) != 1:
            yield f"{len(roots)} roots: {[span.name for span in roots]}"
        missing = [f"{s.name} -> {s.parent_id}" for s in self.spans if s.parent_id not in {"", *self._by_id}]
        if missing:
            yield f"parents that are not there: {missing}"
        if len(self._by_id) != len(self.spans):
            ids = [span.span_id for span in self.spans]
            yield f"came more than once: {sorted({s.name for s in self.spans if ids.count(s.span_id) > 1})}"
        traces = {span.trace_id for span in self.spans}
        if len(traces) > 1:
            yield f"several traces: {sorted(traces)}"
        reached = sum(1 for _ in self.walk())
        if len(roots) == 1 and not missing and reached < len(self._by_id):
            yield f"{len(self._by_id) - reached} spans are their own ancestors"


def _line(depth: int, span: Span) -> str:
    status = "" if span.status == "UNSET" else f"  {span.status} {span.status_message}".rstrip()
    milliseconds = (span.end - span.start) / 1e6
    return f"{'  ' * depth}{span.name}  [{span.span_id}] {span.kind} {milliseconds:.1f} ms{status}"


def _hashable(span: Span) -> dict[str, object]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in span.attributes.items()}
