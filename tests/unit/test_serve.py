"""Process management and HTTP client, against a stub server."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from stub_server import LINE_ENDS

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.serve import Client, ServerProcess, ServerSpec, ports
from sglang_dflash.tools.serve.log import LogWatch, error_line, log_folder
from sglang_dflash.tools.serve.ports import free_port, is_free, release_port
from sglang_dflash.tools.serve.process import wait_all
from sglang_dflash.tools.serve.spec import side_by_side

STUB = Path(__file__).with_name("stub_server.py")
SPEC = ServerSpec("target")


def stub(tmp_path, mode="ok"):
    def command(port):
        return [sys.executable, str(STUB), str(port), mode, str(tmp_path / "child.pid")]

    return ServerProcess(SPEC, log_dir=tmp_path, command=command)


def gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_for(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen"
        time.sleep(0.05)


class TestSpec:
    def test_command_names_the_algorithm_only_with_a_draft(self):
        assert "--speculative-algorithm" not in ServerSpec("t").command(1)
        command = ServerSpec("t", "d", "dflash").command(31200)
        assert command[1:3] == ["-m", "sglang.launch_server"]
        assert command[command.index("--speculative-draft-model-path") + 1] == "d"
        assert command[command.index("--port") + 1] == "31200"

    def test_own_flags_come_last(self):
        command = ServerSpec("t").with_flags("--page-size", 16).command(1, gpu=True)
        assert command[-2:] == ["--page-size", "16"]

    def test_a_gpu_serves_as_sglang_would_unless_answers_are_compared(self):
        spec = ServerSpec("t", "d", "dflash")
        assert spec.command(1, gpu=True) == spec.command(1) == replace(spec, exact=True).command(1)
        more = replace(spec, exact=True).command(1, gpu=True)[len(spec.command(1)) :]
        assert more == [
            "--dtype",
            "float32",
            "--attention-backend",
            "triton",
            "--speculative-draft-attention-backend",
            "triton",
        ]
        assert not [word for word in replace(ServerSpec("t"), exact=True).command(1, gpu=True) if "speculative" in word]

    def test_servers_side_by_side_share_a_gpu(self):
        one, other = ServerSpec("t"), ServerSpec("u", flags=("--mem-fraction-static", "0.3"))
        assert side_by_side({"a": one}, gpu=True) == {"a": one}
        assert side_by_side({"a": one, "b": other}, gpu=False) == {"a": one, "b": other}
        shared = side_by_side({"a": one, "b": other}, gpu=True)
        assert shared["a"].flags == ("--mem-fraction-static", "0.40")
        # SGLang's parser takes the last of two.
        assert shared["b"].flags == ("--mem-fraction-static", "0.40", "--mem-fraction-static", "0.3")

    def test_environment_drops_what_slows_a_server_and_names_the_worker(self):
        base = {"PYTHONDONTWRITEBYTECODE": "1", "TRITON_INTERPRET": "1", "SGLANG_DFLASH_WORKER": "x", "PYTHONPATH": "p"}
        environment = ServerSpec("t", "d", "builtin").with_env(A="b").environment(base)
        assert environment["SGLANG_DFLASH_WORKER"] == "builtin"
        assert environment["A"] == "b" and environment["PYTHONPATH"] == "p"
        assert not {"PYTHONDONTWRITEBYTECODE", "TRITON_INTERPRET"} & set(environment)
        assert "SGLANG_DFLASH_WORKER" not in ServerSpec("t").environment(base)

    def test_is_a_key(self):
        one, two = ServerSpec("t", "d", "dflash", ("--a",)), ServerSpec("t", "d", "dflash").with_flags("--a")
        assert one == two and len({one, two}) == 1 and one.key() == two.key()

    def test_wrong_values_are_named(self):
        with pytest.raises(DFlashError, match="worker"):
            ServerSpec("t", worker="fast")
        with pytest.raises(DFlashError, match="draft"):
            ServerSpec("t", worker="dflash")


class TestPorts:
    def test_never_twice(self):
        ports = [free_port() for _ in range(8)]
        assert len(set(ports)) == 8
        for port in ports:
            release_port(port)

    def test_lies_where_no_connection_gets_its_own(self, monkeypatch, tmp_path):
        setting = tmp_path / "ip_local_port_range"
        setting.write_text("30000\t40000\n")
        monkeypatch.setattr(ports, "_EPHEMERAL", setting)
        assert set(ports._candidates()) == set(range(ports.LOWEST, 29000)) - set(ports.SGLANGS)
        port = free_port()
        release_port(port)
        assert port in range(ports.LOWEST, 22000)

    def test_is_kept_from_other_processes(self):
        port = free_port()
        look = "import sys; from sglang_dflash.tools.serve.ports import free_port; free_port([int(sys.argv[1])])"
        command = [sys.executable, "-c", look, str(port)]
        held = subprocess.run(command, capture_output=True, text=True)
        release_port(port)
        assert "none of the given ports is free" in held.stderr
        assert subprocess.run(command, capture_output=True).returncode == 0

    def test_candidates_exhausted(self):
        port = free_port()
        with pytest.raises(DFlashError, match="port"):
            free_port([port])
        release_port(port)


class TestLog:
    def test_own_error_wins_over_a_traceback(self):
        text = "x\nerror: sglang-dflash: draft: is bad (fix it)\nTraceback\nValueError: later\n"
        assert error_line(text) == "error: sglang-dflash: draft: is bad (fix it)"

    def test_last_exception(self):
        assert error_line("KeyError: 'a'\n...\npkg.mod.CustomError: b\nplain line\n") == "pkg.mod.CustomError: b"
        assert error_line("nothing here\n") is None

    def test_a_taken_port(self):
        line = "ERROR:    [Errno 98] error while attempting to bind on address ('127.0.0.1', 9): address already in use"
        later = "requests.exceptions.ReadTimeout: HTTPConnectionPool\n"
        assert error_line(f"{line}\n{later}").startswith("error while attempting to bind")

    def test_argument_parser(self):
        assert error_line("usage: x\nlaunch_server.py: error: argument --page-size: bad\n").startswith(
            "error: argument"
        )

    def test_logs_stay_only_after_an_error(self):
        with log_folder() as kept:
            pass
        assert not kept.exists()
        with pytest.raises(ValueError), log_folder() as kept:
            raise ValueError
        assert kept.exists()
        kept.rmdir()
        with pytest.raises(KeyboardInterrupt), log_folder() as kept:
            raise KeyboardInterrupt
        assert not kept.exists()

    def test_phases_grow(self, tmp_path):
        log = tmp_path / "log"
        watch = LogWatch(log)
        watch.update()
        assert watch.phase() == (0, "importing")
        log.write_text("server_args=1\n")
        watch.update()
        first = watch.phase()
        with log.open("a") as file:
            file.write("Load weight begin\n")
        watch.update()
        assert watch.phase()[0] > first[0] and watch.phase()[1] == "loading weights"


class TestProcess:
    def test_start_use_stop(self, tmp_path):
        seen = []
        with stub(tmp_path, "child") as server:
            child = int((tmp_path / "child.pid").read_text())
            assert server.client.ready() and server.rss() > 0 and server.peak_rss > 0
            assert {p.pid for p in server.processes()} == {server.pid, child}
            pid = server.pid
            server.poll_ready(lambda percent, phase: seen.append((percent, phase)))
        assert gone(pid) and gone(child) and not server.alive()
        assert seen[-1] == (100, "ready")
        server.stop()

    def test_a_server_that_listens_is_not_ready_before_it_says_so(self, tmp_path):
        server = stub(tmp_path, "slow").start()
        wait_for(lambda: not is_free(server.port))
        assert [server.poll_ready() for _ in range(4)] == [False, False, False, True]
        server.stop()

    @pytest.mark.parametrize(
        "mode, reason",
        [("crash", "made of cheese"), ("error", "mask token 9"), ("exit", "server_args"), ("taken", "in use")],
    )
    def test_failure_is_one_line_and_leaves_nothing(self, tmp_path, mode, reason):
        server = stub(tmp_path, mode).start()
        pid = server.pid
        with pytest.raises(DFlashError, match=reason) as caught:
            server.wait_ready(timeout=30)
        assert "\n" not in str(caught.value) and str(server.log_path) in str(caught.value)
        assert gone(pid)

    def test_a_killed_child_ends_a_waiting_request(self, tmp_path, monkeypatch):
        monkeypatch.setattr("sglang_dflash.tools.serve.process.WATCH", 0.3)
        with stub(tmp_path, "child") as server:
            with pytest.raises(DFlashError, match="was killed"):
                server.watched(lambda: server.client.generate([777]))
            assert not server.alive()

    def test_timeout_stops_it(self, tmp_path):
        server = stub(tmp_path, "hang").start()
        pid = server.pid
        with pytest.raises(DFlashError, match="not ready after"):
            server.wait_ready(timeout=1)
        assert gone(pid)

    def test_one_failure_stops_all(self, tmp_path):
        good, bad = stub(tmp_path / "a").start(), stub(tmp_path / "b", "crash").start()
        pids = good.pid, bad.pid
        with pytest.raises(DFlashError, match="cheese"):
            wait_all([good, bad], timeout=30)
        assert all(gone(pid) for pid in pids)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    def test_a_signal_to_us_stops_the_server(self, tmp_path, number):
        script = textwrap.dedent(f"""
            import sys, time
            from pathlib import Path
            from sglang_dflash.tools.serve import ServerProcess, ServerSpec
            command = lambda port: [sys.executable, {str(STUB)!r}, str(port), "child", {str(tmp_path / "child.pid")!r}]
            with ServerProcess(ServerSpec("t"), log_dir={str(tmp_path)!r}, command=command) as server:
                Path({str(tmp_path / "pid")!r}).write_text(str(server.pid))
                time.sleep(60)
        """)
        parent = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL)
        try:
            wait_for(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
            pids = [int((tmp_path / name).read_text()) for name in ("pid", "child.pid")]
            assert not any(gone(pid) for pid in pids)
            os.kill(parent.pid, number)
            parent.wait(timeout=30)
        finally:
            parent.kill()
        wait_for(lambda: all(gone(pid) for pid in pids))


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with stub(tmp_path_factory.mktemp("client")) as server:
        yield server.client


class TestClient:
    def test_whole_answer(self, client):
        answer = client.generate([1, 2])
        assert answer.token_ids == (1, 2, 3, 4) and answer.text == "abcd" and answer.seconds > 0
        assert (answer.rounds, answer.accept_length, answer.correct_drafts_histogram) == (2, 2.0, (1, 0, 1))
        assert answer.time_to_first_token is None and answer.inter_token_seconds is None

    def test_streamed_answer(self, client):
        pieces = []
        answer = client.generate("hi", on_text=pieces.append)
        assert pieces == ["ab", "abcd"] and answer.token_ids == (1, 2, 3, 4)
        assert [arrival.tokens for arrival in answer.arrivals] == [2, 4]
        assert answer.time_to_first_token > 0 and answer.inter_token_seconds >= 0

    def test_only_line_feeds_end_a_line_of_a_stream(self, client):
        assert client.generate([8232], stream=True).text == LINE_ENDS

    def test_chat_arrives_in_pieces(self, client):
        assert "".join(client.chat_pieces([{"role": "user", "content": "hi"}])) == "abcd"

    def test_many_keep_their_order(self, client):
        assert len(client.generate_many([[i] for i in range(9)], concurrency=4)) == 9

    @pytest.mark.parametrize("stream", [False, True])
    def test_refusal_carries_the_reason(self, client, stream):
        with pytest.raises(DFlashError, match="bad number"):
            client.generate([666], stream=stream)

    def test_nobody_there(self):
        with pytest.raises(DFlashError, match="nobody answers"):
            Client("http://127.0.0.1:9").server_info()
