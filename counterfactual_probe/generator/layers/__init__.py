"""Layers: the activations of a module's submodules, where their channels are, and hooks on them."""

from .address import Address
from .entries import Arguments, activation_of, entries, with_items, with_values
from .hooks import Action, hooked, require_once
from .index import LayerIndex
from .info import LayerInfo, Layers
from .names import clean_name, listed, named_layers
from .site import ChannelsGuessed, Site
from .trace import Trace, Tracing

__all__ = [
    "Action",
    "Address",
    "Arguments",
    "ChannelsGuessed",
    "LayerIndex",
    "LayerInfo",
    "Layers",
    "Site",
    "Trace",
    "Tracing",
    "activation_of",
    "clean_name",
    "entries",
    "hooked",
    "listed",
    "named_layers",
    "require_once",
    "with_items",
    "with_values",
]
