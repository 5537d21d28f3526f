"""A process that has imported SGLang once and forks itself into ``sglang.launch_server`` for each request.

Importing is most of what a server start costs, three times over, since SGLang spawns its children. A fork starts
with everything imported, and its own children are forks too. The server runs the same code from the same command
line; what differs (start method, the plug-in's platform chosen before the command line is read) is covered by the
tests that start servers the ordinary way.

Requests come as JSON lines on standard input, answers leave on standard output; the end of input ends every server:
{"argv": [...], "env": {...}, "log": path} -> {"pid": n}; {"poll": pid, "block": bool} -> {"rc": n or null}.
"""

import faulthandler
import gc
import importlib
import json
import multiprocessing
import os
import runpy
import signal
import sys

MODULES = (
    "sglang.srt.server_args",
    "sglang.srt.entrypoints.http_server",
    "sglang.srt.managers.scheduler",
    "sglang.srt.managers.detokenizer_manager",
    "sglang.srt.model_executor.model_runner",
    "sglang.srt.models.registry",
    "sglang.srt.speculative.dflash_worker_v2",
    "sglang_dflash.engine.worker",
)


def main() -> None:
    # Answers must not mix with what the imports print.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    for name in MODULES:
        importlib.import_module(name)
    gc.collect()
    gc.freeze()  # a collection in a child would touch, and so copy, every page
    children: dict[int, int | None] = {}
    # Whoever waits for a server's processes must not find zombies.
    signal.signal(signal.SIGCHLD, lambda *_: [_poll(children, pid, False) for pid in children])
    answers.write(json.dumps({"ready": os.getpid()}) + "\n")
    for line in sys.stdin:
        request = json.loads(line)
        if "argv" in request:
            pid = _fork(request, answers)
            children[pid] = None
            answer = {"pid": pid}
        else:
            answer = {"rc": _poll(children, request["poll"], request["block"])}
        answers.write(json.dumps(answer) + "\n")
    for pid in [pid for pid, code in children.items() if code is None]:
        _kill(pid)


def _fork(request: dict, answers) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.setsid()
        # A spawned child would not have its parent's handlers; SGLang's own processes set theirs.
        os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
        answers.close()
        log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        null = os.open(os.devnull, os.O_RDONLY)
        for source, number in ((null, 0), (log, 1), (log, 2)):
            os.dup2(source, number)
        faulthandler.register(signal.SIGUSR2, file=2, all_threads=True)  # as the launcher asks a hung server
        sys.stdin = open(os.devnull)  # noqa: SIM115 - the old object still holds requests
        os.environ.clear()
        os.environ.update(request["env"])
        folders = os.environ.get("PYTHONPATH", "").split(os.pathsep)
        sys.path[1:1] = [folder for folder in folders if folder and folder not in sys.path]
        multiprocessing.set_start_method("fork", force=True)
        # SGLang asks for "spawn", which would import everything again.
        multiprocessing.set_start_method = lambda *args, **kwargs: None
        sys.argv = request["argv"]
        code = _run()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _run() -> int:
    try:
        runpy.run_module("sglang.launch_server", run_name="__main__", alter_sys=True)
        return 0
    except SystemExit as leaving:
        if isinstance(leaving.code, str):
            print(leaving.code, file=sys.stderr)
            return 1
        return leaving.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1


def _poll(children: dict[int, int | None], pid: int, block: bool) -> int | None:
    while children[pid] is None:
        try:
            found, status = os.waitpid(pid, 0 if block else os.WNOHANG)
        except ChildProcessError:
            break  # the signal handler was faster
        if not found:
            break
        children[pid] = os.waitstatus_to_exitcode(status)
    return children[pid]


def _kill(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


if __name__ == "__main__":
    main()
