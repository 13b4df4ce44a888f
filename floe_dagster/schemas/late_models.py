"""Parts of a document whose models are known when the first document is read, not when this package is imported.

Distributions bring kinds of their own, and import floe-dagster while they do.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, GetCoreSchemaHandler
from pydantic_core import CoreSchema


class LateModels(ABC):
    """Stands in `Annotated[..., LateModels()]`, and says what really stands there."""

    @abstractmethod
    def annotation(self, source: Any) -> Any:
        """Return the type that is meant.

        Args:
            source: The type that is written there.
        """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return handler.generate_schema(self.annotation(source))


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Yield the models in the type of a field.

    Args:
        annotation: Of the field.
    """
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
        return
    parts = get_args(annotation)
    if get_origin(annotation) is Annotated:
        source, *marks = parts
        late = next((mark for mark in marks if isinstance(mark, LateModels)), None)
        parts = (source if late is None else late.annotation(source),)
    for part in parts:
        yield from models_in(part)
