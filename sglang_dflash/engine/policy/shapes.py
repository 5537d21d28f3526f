"""The stated set of shapes that rounds of one server may have: lanes are built for these at start, and no others."""

from sglang_dflash.types import Shape

CHAINS = (2, 4, 8, 16)
CONTEXTS = (4, 8, 16, 32, 64, 128)
TREES = (16, 32, 64, 128)


def shapes_within(widest: Shape, block_size: int, lookup: bool = False) -> tuple[Shape, ...]:
    """Plain, chains, trees, contexts, each from narrow to wide: all of the set that are no wider than ``widest``, and
    that one.

    Chains are no longer than a block of ``block_size`` tokens, unless ``widest`` is. Trees are there where it is one,
    contexts with ``lookup``.
    """
    longest = min(widest.width, block_size)
    found = [Shape.plain(), *(Shape.chain(width) for width in CHAINS if width < longest), Shape.chain(longest)]
    if widest.is_tree:
        found += [Shape.tree(width, min(width, block_size)) for width in TREES if width < widest.width]
    found.append(widest)
    if lookup:
        found += [Shape.context(width) for width in CONTEXTS if width <= widest.width]
    return tuple(dict.fromkeys(found))
