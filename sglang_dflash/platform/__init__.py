"""SGLang on a machine without an accelerator: an out-of-tree platform whose device is the host CPU."""

BACKEND = "dflash_cpu"  # name of the attention backend
