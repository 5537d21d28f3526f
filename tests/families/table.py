"""All families; one module of rows per kind of state."""

import attention_families

FAMILIES = attention_families.FAMILIES
BY_NAME = {family.name: family for family in FAMILIES}
