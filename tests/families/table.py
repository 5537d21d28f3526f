"""All families; one module of rows per kind of state."""

from dataclasses import replace

import gemma_families
import hybrid_families
import latent_families
import mamba2_families
import paged_families
import sliding_families
import vision_families

# Page sizes of the plain, the chain and the tree server; families take turns.
PAGES = ((1, 16, 64), (16, 64, 4), (64, 1, 16))


def _paged(family, pages):
    plain, chain, tree = (("--page-size", str(size)) for size in pages)
    return replace(
        family,
        plain_flags=plain,
        chain_flags=(*family.chain_flags, *chain),
        tree_flags=(*family.tree_flags, *tree),
        chunk=-(-family.chunk // max(pages)) * max(pages),  # whole pages
    )


# A prefix hit may end inside an image where a page does, and SGLang then makes the rest of it causal.
_SMALL_PAGES = {"gemma4": PAGES[1], "gemma4-moe": PAGES[1]}
_WITHOUT_STATES = (
    paged_families.FAMILIES + gemma_families.FAMILIES + sliding_families.FAMILIES + latent_families.FAMILIES
)
FAMILIES = (
    tuple(_paged(family, _SMALL_PAGES.get(family.name, PAGES[i % 3])) for i, family in enumerate(_WITHOUT_STATES))
    + hybrid_families.FAMILIES
    + vision_families.FAMILIES
    + mamba2_families.FAMILIES
)
BY_NAME = {family.name: family for family in FAMILIES}
