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
from modelyard_kit.filters.listing import Asked, Listing, fetch, read_listing
from modelyard_kit.filters.nodes import FieldType, Node
from modelyard_kit.filters.ordering import Ordering, parse_order
from modelyard_kit.filters.parser import parse_filter
from modelyard_kit.filters.permitted import permitted
from modelyard_kit.filters.sql import chosen, condition
from modelyard_kit.filters.values import PrincipalIds, nobody

__all__ = [
    "AnyField",
    "Asked",
    "Field",
    "FieldType",
    "ListFields",
    "Listing",
    "MapField",
    "Node",
    "Ordering",
    "PrincipalIds",
    "SetField",
    "chosen",
    "condition",
    "fetch",
    "json_number",
    "json_text",
    "nobody",
    "parse_filter",
    "parse_order",
    "permitted",
    "read_listing",
]
