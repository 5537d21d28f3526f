"""DFlash for one request in plain torch: the readable oracle, sharing no code with the served path.

Method: DFlash, arXiv 2602.06036, section 3. Greedy, fp32, chain proposals, full blocks in every round.
"""

from sglang_dflash.reference.draft import ReferenceDraft
from sglang_dflash.reference.generate import Generation, generate, load_target, plain_greedy
from sglang_dflash.reference.variants import ReferenceKind

__all__ = ["Generation", "ReferenceDraft", "ReferenceKind", "generate", "load_target", "plain_greedy"]
