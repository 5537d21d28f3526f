"""The Triton cases need Triton in one mode for a whole process, so test_triton.py starts one for them."""

import os

CASES_DEVICE = os.environ.get("SGLANG_DFLASH_KERNEL_CASES")
collect_ignore = [] if CASES_DEVICE else ["triton_cases"]
