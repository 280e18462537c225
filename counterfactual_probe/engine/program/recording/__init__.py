"""Record a forward as it runs, operation by operation."""

from .recorder import NotRecordable, in_order, record

__all__ = ["NotRecordable", "in_order", "record"]
