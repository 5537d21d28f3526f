"""The cases need a process of their own, with Triton interpreted, so test_gpu_backends.py starts one for them."""

import os

collect_ignore = [] if os.environ.get("TRITON_INTERPRET") else ["cases"]
