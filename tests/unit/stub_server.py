"""A small HTTP server that behaves like a starting SGLang server; run as a script by the tests of serve/.

Usage: stub_server.py PORT MODE CHILD_PID_FILE, with MODE one of ok, slow, crash, error, exit, taken, hang, child.
The prompt [666] is refused; [8232] is answered with characters that some readers take for line ends; [777] kills the
child, and then no answer comes.
"""

import json
import os
import signal
import subprocess
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

META = {
    "completion_tokens": 4,
    "spec_verify_ct": 2,
    "spec_accept_length": 2.0,
    "spec_correct_drafts_histogram": [1, 0, 1],
}

LINE_ENDS = "a\u2028b\u2029c\x85d"

children = []
starts_with = []  # whether the next questions for its health find it starting


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *arguments):
        pass

    def _reply(self, status, body, kind="application/json"):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self):
        starting = self.path == "/health" and starts_with.pop() if starts_with else False
        self._reply(503 if starting else 200, {"path": self.path})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
        if self.path == "/v1/chat/completions" and body.get("stream"):
            pieces = [{"role": "assistant"}, {"content": "ab"}, {"content": "cd"}]
            lines = "".join(f"data: {json.dumps({'choices': [{'delta': piece}]})}\n\n" for piece in pieces)
            return self._reply(200, (lines + "data: [DONE]\n\n").encode(), "text/event-stream")
        if self.path != "/generate":
            return self._reply(200, {})
        if body.get("input_ids") == [777]:
            os.kill(children[0].pid, signal.SIGKILL)
            time.sleep(60)
        if body.get("input_ids") == [666]:
            return self._reply(400, {"error": {"message": "bad number"}})
        if not body.get("stream"):
            return self._reply(200, {"text": "abcd", "output_ids": [1, 2, 3, 4], "meta_info": META})
        events = [
            {"text": "ab", "output_ids": [1, 2], "meta_info": {**META, "completion_tokens": 2}},
            {"text": "abcd", "output_ids": [1, 2, 3, 4], "meta_info": META},
        ]
        if body.get("input_ids") == [8232]:
            events = [{**events[1], "text": LINE_ENDS}]
        # SGLang escapes nothing that JSON lets through.
        texts = [json.dumps(event, ensure_ascii=False) for event in events]
        lines = "".join(f"data: {text}\n\n" for text in texts) + "data: [DONE]\n\n"
        return self._reply(200, lines.encode(), "text/event-stream")


def main():
    port, mode, pid_file = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    print("server_args=ServerArgs(...)", flush=True)
    if mode == "crash":
        print("Scheduler hit an exception: Traceback (most recent call last):", flush=True)
        print('  File "x.py", line 1, in run', flush=True)
        print("RuntimeError: the weights are made of cheese", flush=True)
        time.sleep(60)
    if mode == "error":
        print("error: sglang-dflash: draft: mask token 9 is not in the vocabulary (use another draft)", flush=True)
        sys.exit(2)
    if mode == "exit":
        sys.exit(3)
    if mode == "taken":
        print(f"ERROR:  [Errno 98] error while attempting to bind on address ('127.0.0.1', {port}): in use", flush=True)
        time.sleep(60)
    if mode == "slow":
        starts_with.extend([True] * 3)
    if mode == "hang":
        time.sleep(60)
    if mode == "child":
        children.append(subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]))
        with open(pid_file, "w") as file:
            file.write(str(children[0].pid))
    print("Application startup complete", flush=True)
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main()
