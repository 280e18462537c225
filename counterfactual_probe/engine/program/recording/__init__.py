"""A forward watched as it runs, and written down operation by operation."""

from .recorder import NotRecordable, in_order, record

__all__ = ["NotRecordable", "in_order", "record"]
