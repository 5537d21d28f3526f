"""The command that measures plain steps and rounds beside their products."""

import json

import pytest

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.bench import passcost

CONFIG = {
    "model_type": "llama",
    "hidden_size": 512,
    "intermediate_size": 1024,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": 96,
}


def checkpoint(folder, **changes) -> str:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG | changes))
    return str(folder)


def test_the_matrices_of_a_pass(tmp_path):
    layer = [(768, 512), (512, 512), (2048, 512), (512, 1024)]
    assert passcost.shapes(checkpoint(tmp_path / "target")) == [*layer, *layer, (96, 512)]
    with pytest.raises(DFlashError, match="target: is a mamba2 model"):
        passcost.shapes(checkpoint(tmp_path / "other", model_type="mamba2"))


class Server:
    """Writes what a server would have timed of every answer."""

    started: list = []

    def __init__(self, spec):
        self.client = self
        self._spec, self._path = spec, dict(spec.env)["SGLANG_DFLASH_TIMINGS"]
        Server.started.append(spec)

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        pass

    def generate_many(self, prompts, concurrency, sampling):
        bs = len(prompts)
        step = {"requests": bs, "step_ms": 10.0 * bs}
        entry = {"bs": bs, "round": 30.0 * bs, "stages": {"verify": 20.0 * bs}}
        with open(self._path, "a") as file:
            file.write(json.dumps(step if self._spec.worker == "plain" else entry) + "\n")


def test_turns_and_the_table(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(passcost, "ServerProcess", Server)
    monkeypatch.setattr(passcost.torch, "set_num_threads", lambda n: None)
    target, draft = checkpoint(tmp_path / "target"), checkpoint(tmp_path / "draft", block_size=4)
    out = tmp_path / "out.json"
    passcost.run_pass_cost(target, draft, None, [1, 2], threads=3, tokens=4, turns=2, out=out)
    found = json.loads(out.read_text())
    rows = [(p["what"], p["requests"], p["rows"], p["best"]) for p in found["passes"]]
    assert rows == [
        ("step", 1, 1, 10.0), ("verify", 1, 4, 20.0), ("round", 1, 4, 30.0),
        ("step", 2, 2, 20.0), ("verify", 2, 8, 40.0), ("round", 2, 8, 60.0),
    ]  # fmt: skip
    assert all(p["torch"] > 0 and p["packed"] > 0 for p in found["passes"])
    assert "3.00x" in capsys.readouterr().out
    plain, ours = Server.started
    assert dict(plain.env)["OMP_NUM_THREADS"] == "3"
    assert ours.flags[-2:] == ("--speculative-num-draft-tokens", "4")


def test_requests_that_never_met(tmp_path):
    with pytest.raises(DFlashError, match="requests: 2 were not in flight together"):
        passcost._costs(2, 4, [{"requests": 1, "step_ms": 1.0}], [], {})


def test_small_weights_are_multiplied_as_they_lie(tmp_path):
    products = passcost.Products(checkpoint(tmp_path / "target"))
    assert [len(products.packed), len(products.small)] == [8, 1]
    times: dict = {}
    products.turn(3, times)
    assert set(times) == {("packed", 3), ("torch", 3)}
