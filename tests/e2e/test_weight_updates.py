"""Weights are updated on a running server: what is served afterwards, and what a failed update leaves behind."""

import base64
import pickle
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from exact import Ask, PlainAnswers, assert_same
from pushes import Broadcast, Trainer, copy_of, fused, split, weights

TOKENS = 48
DRAFT, TARGET = "draft", "target"


class Checkpoints:
    """The pair's own, and others of the same shapes."""

    def __init__(self, pair, folder: Path):
        self._generator = torch.Generator().manual_seed(0)
        self.target, self.draft = pair.target, pair.draft
        self.other_target = copy_of(pair.target, folder / "target", self._shaken)
        self.random_draft = copy_of(pair.draft, folder / "draft", self._random)
        self.folder = folder

    def _shaken(self, name, tensor):
        return tensor * (1 + 0.3 * self._noise(tensor)) if tensor.dim() == 2 else tensor

    def _random(self, name, tensor):
        return 0.3 * self._noise(tensor) if tensor.dim() == 2 else tensor

    def _noise(self, tensor):
        return torch.randn(tensor.shape, generator=self._generator)


class OneServer:
    """The plain server that answers are compared with."""

    def __init__(self, servers, spec):
        self._servers, self._spec = servers, spec

    def plain(self):
        return self._servers.get(self._spec)


@pytest.fixture(scope="module")
def checkpoints(pair, tmp_path_factory):
    return Checkpoints(pair, tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="module")
def asks(pair):
    return [Ask(tuple(prompt.token_ids), TOKENS) for prompt in pair.prompts(per_kind=1)[:6]]


@pytest.fixture(scope="module")
def plain_of(servers, checkpoints):
    """Plain decoding's answers by target: a server started on each."""
    return {
        path: PlainAnswers(OneServer(servers, replace(servers.spec("plain"), target=path)))
        for path in (checkpoints.target, checkpoints.other_target)
    }


class Served:
    """The server under test, with what it answered before any update."""

    def __init__(self, servers, spec, asks, ranks=1):
        self._servers, self._spec, self._asks = servers, spec, asks
        self.trainer = Trainer(self.server.client.url, ranks)
        self.before = self.answers()
        self.sums = self.trainer.checksums()

    @property
    def server(self):
        return self._servers.get(self._spec)

    def answers(self):
        client = self.server.client
        answers = [client.generate(ask.prompt, ask.sampling()) for ask in self._asks]
        # Waits until the scheduler has done with them: SGLang refuses to flush before, and an update flushes.
        client.flush_cache()
        return answers

    def assert_as_before(self):
        """Weights to the bit, answers, and the length of every request's rounds."""
        assert self.trainer.checksums() == self.sums
        now = self.answers()
        assert [answer.token_ids for answer in now] == [answer.token_ids for answer in self.before]
        assert lengths(now) == lengths(self.before)


def lengths(answers) -> list[float]:
    return [answer.accept_length for answer in answers]


def mean_length(answers) -> float:
    return sum(lengths(answers)) / len(answers)


@pytest.fixture(scope="module")
def served(servers, asks):
    spec = servers.spec("dflash", "--random-seed", 1)
    served = Served(servers, spec, asks)
    assert mean_length(served.before) > 4
    yield served
    servers.stop(spec)


# --- from disk ---


def test_a_target_from_disk_is_what_is_decoded(served, plain_of, checkpoints, asks):
    assert served.trainer.disk(checkpoints.other_target).success
    answers = served.answers()
    assert [a.token_ids for a in answers] != [a.token_ids for a in served.before]
    assert_same(plain_of[checkpoints.other_target], asks, answers)
    draft = {name: value for name, value in served.sums.items() if name.startswith("draft.")}
    assert draft and draft.items() <= served.trainer.checksums().items()
    assert served.trainer.disk(checkpoints.target).success
    served.assert_as_before()


def test_a_draft_from_disk_changes_the_rounds_alone(served, checkpoints):
    assert served.trainer.disk(checkpoints.random_draft).success
    answers = served.answers()
    assert [a.token_ids for a in answers] == [a.token_ids for a in served.before]
    assert mean_length(answers) < 1.2
    assert served.trainer.disk(checkpoints.draft).success
    served.assert_as_before()


# --- pushed ---


@pytest.mark.parametrize(("selector", "load_format"), [("all", None), ("target", "flattened_bucket")])
def test_a_pushed_target_leaves_the_draft_alone(served, plain_of, checkpoints, asks, selector, load_format):
    """Unprefixed names are the target's, although the draft's layers are named alike."""
    served.trainer.session(split(weights(checkpoints.other_target), 3), selector, load_format)
    assert_same(plain_of[checkpoints.other_target], asks, served.answers())
    draft = {name: value for name, value in served.sums.items() if name.startswith("draft.")}
    assert draft.items() <= served.trainer.checksums().items()
    served.trainer.session([weights(checkpoints.target)], selector, load_format)
    served.assert_as_before()


@pytest.mark.parametrize(
    ("selector", "load_format"), [("all", None), ("draft", "flattened_bucket"), ("draft", "direct"), ("all", "direct")]
)
def test_a_pushed_draft_changes_the_rounds_alone(served, checkpoints, selector, load_format):
    prefix = "draft." if selector == "all" else ""
    random, trained = (weights(path) for path in (checkpoints.random_draft, checkpoints.draft))
    if load_format == "direct":
        random, trained = fused(random), fused(trained)
    random, trained = ([(prefix + name, tensor) for name, tensor in named] for named in (random, trained))
    served.trainer.session(split(random, 3), selector, load_format)
    answers = served.answers()
    assert [a.token_ids for a in answers] == [a.token_ids for a in served.before]
    assert mean_length(answers) < 1.2
    served.trainer.session(split(trained, 2), selector, load_format)
    served.assert_as_before()


def test_what_injection_packs_follows_each_push(served, checkpoints):
    """K projections and key norms alone: nothing else of the draft shows that they were replaced."""
    parts = [pair for pair in weights(checkpoints.draft) if ".k_proj." in pair[0] or ".k_norm." in pair[0]]
    zeroed = [(name, torch.zeros_like(tensor)) for name, tensor in parts]
    served.trainer.session([zeroed], "draft")
    assert mean_length(served.answers()) < mean_length(served.before) - 0.5
    served.trainer.session([parts], "draft", "flattened_bucket")
    served.assert_as_before()


def test_both_in_one_push(served, plain_of, checkpoints, asks):
    both = weights(checkpoints.other_target) + weights(checkpoints.random_draft, "draft.")
    served.trainer.session([both], "all")
    answers = served.answers()
    assert_same(plain_of[checkpoints.other_target], asks, answers)
    assert mean_length(answers) < 1.2
    served.trainer.session([weights(checkpoints.draft, "draft.") + weights(checkpoints.target)], "all")
    served.assert_as_before()


# --- failures: everything is as it was, and the answer says why ---


def misshaped(name, tensor):
    return tensor[:-1] if "layers.1.mlp.down_proj" in name else tensor


def incomplete(name, tensor):
    return None if "layers.1.self_attn.o_proj" in name else tensor


def truncated(folder: str) -> str:
    path = Path(folder) / "model.safetensors"
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    return folder


def without_config(folder: str) -> str:
    (Path(folder) / "config.json").unlink()
    return folder


BAD_FOLDERS = {
    "missing": (lambda c, to: str(to), "is no folder"),
    "without config": (lambda c, to: without_config(copy_of(c.other_target, to)), "has no config.json"),
    "misshaped target": (lambda c, to: copy_of(c.other_target, to, misshaped), "down_proj|size|shape"),
    "truncated target": (lambda c, to: truncated(copy_of(c.other_target, to)), "SafetensorError|incomplete"),
    "misshaped draft": (lambda c, to: copy_of(c.random_draft, to, misshaped), "down_proj.weight: shape"),
    "truncated draft": (lambda c, to: truncated(copy_of(c.random_draft, to)), "SafetensorError|incomplete"),
    "incomplete draft": (lambda c, to: copy_of(c.random_draft, to, incomplete), "lacks layers.1.self_attn.o_proj"),
    "another draft": (lambda c, to: copy_of(c.random_draft, to, rms_norm_eps=0.5), "differs .* in rms_norm_eps"),
}


@pytest.mark.parametrize("case", BAD_FOLDERS)
def test_a_failed_update_from_disk_changes_nothing(served, checkpoints, case, tmp_path):
    make, reason = BAD_FOLDERS[case]
    answer = served.trainer.disk(make(checkpoints, tmp_path / "bad"))
    assert not answer.success
    assert re.search(reason, answer.message), answer.message
    assert answer.message.endswith("Target and draft are as they were before this update.")
    assert served.trainer.checksums() == served.sums


def changed(tensors, change):
    return [(name, change(name, tensor)) for name, tensor in tensors]


BAD_PUSHES = {
    "misshaped target": (lambda c: changed(weights(c.other_target), misshaped), {}, "size|shape"),
    "misshaped draft": (
        lambda c: changed(weights(c.random_draft), misshaped),
        {"selector": "draft", "load_format": "flattened_bucket"},
        "draft tensor layers.1.mlp.down_proj.weight: shape",
    ),
    "draft fails after target": (
        lambda c: weights(c.other_target) + changed(weights(c.random_draft, "draft."), misshaped),
        {},
        "draft tensor layers.1.mlp.down_proj.weight: shape",
    ),
    "unknown to the draft": (lambda c: [("selector.weight", torch.zeros(2))], {"selector": "draft"}, "is unknown"),
    "draft without prefix": (lambda c: weights(c.random_draft), {}, "is a draft's, and would go to the target"),
    "draft to the target": (
        lambda c: weights(c.random_draft, "draft."),
        {"selector": "target"},
        "is the draft's, in an update of the target",
    ),
    "no such parameter": (
        lambda c: [("draft.fc.bias", torch.zeros(2))],
        {"load_format": "direct"},
        "draft parameter fc.bias: does not exist",
    ),
    "no such format": (lambda c: weights(c.other_target), {"load_format": "braille"}, "Unknown load_format=braille"),
}


@pytest.mark.parametrize("case", BAD_PUSHES)
def test_a_failed_push_takes_its_session_back(served, checkpoints, case):
    make, fields, reason = BAD_PUSHES[case]
    assert served.trainer.begin().success
    # What was pushed before it in the session goes back, too.
    assert served.trainer.push(weights(checkpoints.random_draft), "draft").success
    assert served.trainer.push(weights(checkpoints.other_target), "target").success
    assert served.trainer.checksums() != served.sums
    answer = served.trainer.push(make(checkpoints), **fields)
    assert not answer.success
    assert re.search(reason, answer.message), answer.message
    assert answer.message.endswith("before begin_weight_update was called: push everything again.")
    assert served.trainer.checksums() == served.sums
    assert served.trainer.end().success
    assert served.trainer.checksums() == served.sums


UNREADABLE = {
    "no pickle": base64.b64encode(b"certainly no tensors").decode(),
    "another object": base64.b64encode(pickle.dumps(7)).decode(),
    "unsafe": base64.b64encode(pickle.dumps(Path("/"))).decode(),
}


@pytest.mark.parametrize("payload", UNREADABLE.values(), ids=UNREADABLE)
def test_an_unreadable_payload_is_answered(served, payload):
    assert served.trainer.begin().success
    answer = served.trainer.push_raw([payload], selector="all")
    assert not answer.success and answer.message
    assert served.trainer.end().success
    assert served.trainer.checksums() == served.sums


def test_the_server_decodes_as_before_after_all_that_failed(served):
    served.assert_as_before()


# --- while requests run ---


def test_an_update_waits_for_the_requests_that_run(served, plain_of, checkpoints, asks):
    """Every answer is wholly the old target's, or wholly the new one's."""
    with ThreadPoolExecutor(8) as pool:
        client = served.server.client
        jobs = [pool.submit(client.generate, ask.prompt, ask.sampling()) for ask in asks * 4]
        answer = served.trainer.disk(checkpoints.other_target)
        answers = [job.result() for job in jobs]
    if answer.success:
        old, new = (plain_of[path].of(asks) * 4 for path in (checkpoints.target, checkpoints.other_target))
        found = [got.token_ids in pair for got, pair in zip(answers, zip(old, new, strict=True), strict=True)]
        assert sum(found) >= len(found) - 1  # but for a tie
    else:
        # SGLang answers requests a moment before it has done with them; what it cached before is still there.
        assert "but the cache was not flushed" in answer.message
        served.server.client.flush_cache()
    assert_same(plain_of[checkpoints.other_target], asks, served.answers())
    assert served.trainer.disk(checkpoints.target).success
    served.assert_as_before()


def test_an_update_of_a_paused_server(served, plain_of, checkpoints, asks):
    """Requests stand still in the middle of their answers, and go on with the new weights."""
    with ThreadPoolExecutor(8) as pool:
        client = served.server.client
        sampling = Ask((1,), 400).sampling()
        jobs = [pool.submit(client.generate, ask.prompt, sampling) for ask in asks]
        assert served.trainer.plain_post("pause_generation", mode="in_place")
        both = weights(checkpoints.other_target) + weights(checkpoints.random_draft, "draft.")
        assert served.trainer.begin().success
        assert served.trainer.push(both, flush_cache=False).success
        assert served.trainer.end().success
        assert served.trainer.plain_post("continue_generation")
        assert all(len(job.result().token_ids) == 400 for job in jobs)
    # Keys and values of both weights lie in the cache.
    served.server.client.flush_cache()
    answers = served.answers()
    assert_same(plain_of[checkpoints.other_target], asks, answers)
    served.trainer.session([weights(checkpoints.draft, "draft.") + weights(checkpoints.target)], "all")
    served.assert_as_before()


# --- other starts ---


def test_a_server_without_weights_gets_all_of_them_in_pushes(servers, plain_of, checkpoints, asks, served):
    spec = servers.spec("dflash", "--load-format", "dummy")
    trainer = Trainer(servers.get(spec).client.url)
    pushes = split(weights(checkpoints.target), 4) + split(weights(checkpoints.draft, "draft."), 4)
    trainer.session(pushes, "all", "flattened_bucket")
    answers = [servers.get(spec).client.generate(ask.prompt, ask.sampling()) for ask in asks]
    assert_same(plain_of[checkpoints.target], asks, answers)
    assert lengths(answers) == lengths(served.before)
    servers.stop(spec)


def test_a_broadcast_reaches_whom_it_is_addressed_to(served, plain_of, checkpoints, asks):
    """A trainer is rank 0 of a group that the server joins."""
    with Broadcast(served.trainer) as group:
        group.send(checkpoints.other_target, "target", None)
        assert_same(plain_of[checkpoints.other_target], asks, served.answers())
        group.send(checkpoints.target, "all", "flattened_bucket")
        assert served.trainer.checksums() == served.sums
        group.send(checkpoints.random_draft, "draft", "flattened_bucket")
        answers = served.answers()
        assert [a.token_ids for a in answers] == [a.token_ids for a in served.before]
        assert mean_length(answers) < 1.2
        now = served.trainer.checksums()
        answer = group.send(checkpoints.draft, "all", None, fails=True)
        assert "would go to the target" in answer.message
        assert served.trainer.checksums() == now
        group.send(checkpoints.draft, "draft", None)
    served.assert_as_before()


def test_ranks_agree_on_an_update(servers, plain_of, checkpoints, asks):
    """Two ranks, each with its part of the tensors; what fails on one is taken back on both."""
    spec = servers.spec("dflash", "--tp-size", 2)
    served = Served(servers, spec, asks, ranks=2)
    served.trainer.session([weights(checkpoints.other_target) + weights(checkpoints.random_draft, "draft.")])
    answers = served.answers()
    assert_same(plain_of[checkpoints.other_target], asks, answers)
    assert mean_length(answers) < 1.2
    good, bad = weights(checkpoints.target), changed(weights(checkpoints.target), misshaped)
    now = served.trainer.checksums()
    assert served.trainer.begin().success
    answer = served.trainer.push_each([good, bad])
    assert not answer.success and answer.message.startswith("rank 1: ")
    assert served.trainer.checksums() == now
    answer = served.trainer.push_raw([served.trainer.payload(good), UNREADABLE["no pickle"]])
    assert not answer.success and answer.message.startswith("rank 1: ")
    assert served.trainer.checksums() == now
    assert served.trainer.end().success
    served.trainer.session([good + weights(checkpoints.draft, "draft.")])
    served.assert_as_before()
    servers.stop(spec)


def test_updates_under_overlap(servers, plain_of, checkpoints, asks):
    """A pass may be in flight when an update comes."""
    spec = servers.spec("dflash", SGLANG_DFLASH_CPU_OVERLAP="on")
    served = Served(servers, spec, asks)
    with ThreadPoolExecutor(8) as pool:
        jobs = [pool.submit(served.server.client.generate, ask.prompt, ask.sampling()) for ask in asks]
        served.trainer.disk(checkpoints.other_target, flush_cache=False)
        [job.result() for job in jobs]
    served.server.client.flush_cache()
    assert_same(plain_of[checkpoints.other_target], asks, served.answers())
    assert served.trainer.disk(checkpoints.target).success
    served.assert_as_before()
    servers.stop(spec)
