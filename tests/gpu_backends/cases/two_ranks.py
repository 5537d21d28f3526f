"""One of two tensor-parallel ranks: a round of each worker, and the bytes that it gathers, as a JSON line.

``python two_ranks.py RANK PORT``
"""

import contextlib
import json
import sys
from collections import Counter
from unittest import mock

from sglang.srt.plugins import load_plugins

load_plugins()

from sglang.srt.distributed.parallel_state import GroupCoordinator  # noqa: E402
from world import WORKERS, World, prompts  # noqa: E402


def main(rank: int, port: int) -> None:
    seen = {}
    for name in WORKERS:
        # A target each: our worker leaves its logits in shards, which the built-in one does not expect.
        world = World("--tp-size", "2", workers=(name,), rank=rank, port=port)
        batch = world.batch(prompts(3))
        with gathered() as counts:
            result = world.run(name, batch)
        lens = result.accept_lens.tolist()
        rows = result.next_token_ids.view(len(lens), -1).tolist()
        seen[name] = {**counts, "kept": [row[:count] for row, count in zip(rows, lens, strict=True)]}
    print(json.dumps({"rank": rank, "vocabulary": world.target.model_config.vocab_size, "rounds": seen}))


@contextlib.contextmanager
def gathered():
    """Scope that counts gathers, and the bytes that they bring together on this rank."""
    counts, inside = Counter(), []

    def counting(run, size):
        def wrapped(group, *args, **kwargs):
            if not inside:
                counts["gathers"] += 1
                counts["bytes"] += size(group, *args)
            inside.append(run)
            try:
                return run(group, *args, **kwargs)
            finally:
                inside.pop()

        return wrapped

    sizes = {
        "all_gather": lambda group, given, *_: group.world_size * given.numel() * given.element_size(),
        "all_gather_into_tensor": lambda group, output, *_: output.numel() * output.element_size(),
    }
    with contextlib.ExitStack() as stack:
        for name, size in sizes.items():
            run = getattr(GroupCoordinator, name)
            stack.enter_context(mock.patch.object(GroupCoordinator, name, counting(run, size)))
        yield counts


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
