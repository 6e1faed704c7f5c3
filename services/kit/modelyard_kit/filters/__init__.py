"""The filter language of every list: typed, compiled to SQL with bound parameters. See docs/filters.md."""

from modelyard_kit.filters.fields import (
    AnyField,
    Field,
    ListFields,
    MapField,
    SetField,
    json_number,
    json_text,
)
from modelyard_kit.filters.listing import Listing, read_listing
from modelyard_kit.filters.nodes import FieldType, Node
from modelyard_kit.filters.ordering import Ordering, parse_order
from modelyard_kit.filters.parser import parse_filter
from modelyard_kit.filters.sql import chosen, condition

__all__ = [
    "AnyField",
    "Field",
    "FieldType",
    "ListFields",
    "Listing",
    "MapField",
    "Node",
    "Ordering",
    "SetField",
    "chosen",
    "condition",
    "json_number",
    "json_text",
    "parse_filter",
    "parse_order",
    "read_listing",
]
