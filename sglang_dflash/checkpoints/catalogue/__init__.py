"""Published targets and their drafts: one data file, and what is made from it. Imports no model library."""

from sglang_dflash.checkpoints.catalogue.entries import (
    GENERATIONS,
    Backends,
    Catalogue,
    DraftEntry,
    Entry,
    Published,
    load_catalogue,
)

__all__ = ["GENERATIONS", "Backends", "Catalogue", "DraftEntry", "Entry", "Published", "load_catalogue"]
