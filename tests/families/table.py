"""All families; one module of rows per kind of state."""

import gemma_families
import hybrid_families
import latent_families
import mamba2_families
import paged_families
import sliding_families
import vision_families

FAMILIES = (
    paged_families.FAMILIES
    + gemma_families.FAMILIES
    + sliding_families.FAMILIES
    + latent_families.FAMILIES
    + hybrid_families.FAMILIES
    + vision_families.FAMILIES
    + mamba2_families.FAMILIES
)
BY_NAME = {family.name: family for family in FAMILIES}
