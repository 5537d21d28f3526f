"""SGLang on a machine without an accelerator: an out-of-tree platform whose device is the host CPU."""

BACKEND = "dflash_cpu"  # name of the attention backend
NAME = "sglang_dflash_cpu"  # name of the platform, and of its operators in SGLang's dispatch
