"""``sglang-dflash check``: does a draft fit a target, how are they served here, and are they wired right?"""
