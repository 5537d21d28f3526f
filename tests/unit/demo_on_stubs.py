"""Runs the demo with stub servers in place of SGLang: ``demo_on_stubs.py FOLDER``; FOLDER gets the process ids."""

import sys
from pathlib import Path

from sglang_dflash.tools.bench.prompts import Prompt
from sglang_dflash.tools.demo import run
from sglang_dflash.tools.serve.spec import ServerSpec

folder = Path(sys.argv[1])
stub = Path(__file__).with_name("stub_server.py")


def command(self, port, host="127.0.0.1", gpu=False):
    child = folder / f"child-{self.worker}"
    return [sys.executable, str(stub), str(port), "child", str(child), "-", "-", "-", "-"]


def prompts(target, source, kinds=None, per_kind=None, **more):
    record = {"id": "a-0", "kind": "add", "messages": [{"role": "user", "content": "1+1?"}]}
    return [Prompt("a-0", "add", (1, 2), record)] * (per_kind or 1)


ServerSpec.command = command
run.load_prompts = prompts
run.fitting = lambda systems: systems
run.kinds_in = lambda source: ["add"]
# Long enough to be interrupted where the test wants that.
run.prompt_room = lambda target, max_tokens: None
ok = run.run_demo(run.DemoOptions("target", "draft", [folder], 1, 4, 8, repeats=int(sys.argv[2])))
sys.exit(0 if ok else 1)
