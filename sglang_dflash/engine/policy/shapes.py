"""The stated set of shapes that rounds of one server may have: lanes are built for these at start, and no others."""

from sglang_dflash.types import Shape

CHAINS = (2, 4, 8, 16)
TREES = (16, 32, 64, 128)


def shapes_within(widest: Shape, block_size: int) -> tuple[Shape, ...]:
    """Plain, chains, trees, each from narrow to wide: all of the set that are no wider than ``widest``, and that one.

    Chains are no longer than a block of ``block_size`` tokens. Trees are there where ``widest`` is one.
    """
    longest = min(widest.width, block_size)
    found = [Shape.plain(), *(Shape.chain(width) for width in CHAINS if width < longest), Shape.chain(longest)]
    if widest.is_tree:
        found += [Shape.tree(width, min(width, block_size)) for width in TREES if width < widest.width] + [widest]
    return tuple(dict.fromkeys(found))
