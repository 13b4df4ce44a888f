"""Straight lines through what was measured at several sizes, and where one of them passes below another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import floor


@dataclass(frozen=True, slots=True)
class Line:
    """What a run takes at any scale.

    Args:
        fixed: Whatever the scale is.
        per_scale: And for each unit of it.
    """

    fixed: float
    per_scale: float

    def at(self, scale: float) -> float:
        """Return what it takes at a scale."""
        return self.fixed + self.per_scale * scale

    def on_nodes(self, nodes: int) -> Line:
        """Return the line of as many nodes with cores of their own, where they divide the work evenly."""
        return Line(self.fixed, self.per_scale / nodes)


def growth_lines(measured: Mapping[str, Mapping[float, float]]) -> dict[str, Line]:
    """Return the line of least squares of each arm.

    Args:
        measured: By arm what was measured, by scale.

    Raises:
        ValueError: Of an arm there are fewer than two scales.
    """
    return {name: _line(points) for name, points in measured.items()}


def _line(points: Mapping[float, float]) -> Line:
    if len(points) < 2:
        raise ValueError("a line needs two scales")
    middle = sum(points) / len(points)
    mean = sum(points.values()) / len(points)
    spread = sum((scale - middle) ** 2 for scale in points)
    slope = sum((scale - middle) * (value - mean) for scale, value in points.items()) / spread
    return Line(mean - slope * middle, slope)


def overtakes(line: Line, other: Line) -> float | None:
    """Return the scale from which on a line is below another one; None where it is not in the end."""
    if line.per_scale > other.per_scale or (line.per_scale == other.per_scale and line.fixed >= other.fixed):
        return None
    if line.fixed <= other.fixed:
        return 0.0
    return (line.fixed - other.fixed) / (other.per_scale - line.per_scale)


def nodes_to_overtake(line: Line, other: Line) -> int | None:
    """Return how many nodes a line needs to grow more slowly than another; None where the other one does not grow."""
    return None if other.per_scale <= 0 else max(1, floor(line.per_scale / other.per_scale) + 1)
