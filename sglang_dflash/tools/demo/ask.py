"""``sglang-dflash generate``: one answer, from a running server or from one started for it."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from sglang_dflash.tools.pair.named import Pair
from sglang_dflash.tools.serve import Client, ServerSpec
from sglang_dflash.tools.serve.console import started
from sglang_dflash.tools.serve.log import log_folder


def answer_once(prompt: str, url: str, fields: Mapping[str, Any], pair: Pair | None, exact: bool) -> None:
    """Stream the answer to stdout, from ``url`` or else a server of ``pair``; progress goes to stderr."""
    if url:
        client = Client(url)
        _stream(client, prompt, fields)
        client.close()
        return
    with log_folder() as folder:
        spec = ServerSpec(pair.target, pair.draft, "dflash", exact=exact)
        with started({"sglang-dflash": spec}, Console(stderr=True), folder) as servers:
            _stream(servers["sglang-dflash"].client, prompt, fields)


def _stream(client: Client, prompt: str, fields: Mapping[str, Any]) -> None:
    for piece in client.chat_pieces([{"role": "user", "content": prompt}], **fields):
        print(piece, end="", flush=True)
    print()
