"""One of two tensor-parallel ranks: a round of each worker, what it gathers and launches, as a JSON line.

``python two_ranks.py RANK PORT``
"""

import contextlib
import json
import sys
from collections import Counter
from unittest import mock

from sglang.srt.plugins import load_plugins

load_plugins()

import pytest  # noqa: E402
from backends import CARDS  # noqa: E402
from counts import counted  # noqa: E402
from rounds import Launch, kept  # noqa: E402
from sglang.srt.distributed.parallel_state import GroupCoordinator  # noqa: E402
from world import WORKERS  # noqa: E402


def main(rank: int, port: int) -> None:
    seen = {}
    for name in WORKERS:
        # A target each: our worker leaves its logits in shards, which the built-in one does not expect.
        launch = Launch("--tp-size", "2", workers=(name,), cuda=True, rank=rank, port=port)
        with gathered() as counts:
            result = launch.world.run(name, launch.batch)
        seen[name] = {**counts, "kept": kept(result)}
        patch = pytest.MonkeyPatch()
        with launch.on(CARDS["fa3"], patch, graph=True, host_lens=False):
            one = counted(launch, name)
            seen[name] |= {"launches": one.launches, "waits": one.waits}
        patch.undo()
    print(json.dumps({"rank": rank, "vocabulary": launch.world.target.model_config.vocab_size, "rounds": seen}))


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
