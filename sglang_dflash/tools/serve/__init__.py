"""Starts real SGLang servers as child processes, watches them, talks to them, and leaves nothing running.

Imports neither torch nor SGLang: the server is another process.
"""

from sglang_dflash.tools.serve.client import Client
from sglang_dflash.tools.serve.generation import Generation
from sglang_dflash.tools.serve.process import ServerProcess
from sglang_dflash.tools.serve.spec import WORKERS, ServerSpec

__all__ = ["WORKERS", "Client", "Generation", "ServerProcess", "ServerSpec"]
