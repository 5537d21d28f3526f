"""Held-out evaluation of a pair: right answers, accept lengths, acceptance by position, repetition."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from sglang_dflash.errors import DFlashError
from sglang_dflash.tools.pair.checks import is_right, repeated_share
from sglang_dflash.tools.pair.heldout import HELDOUT_KINDS, load_heldout
from sglang_dflash.tools.train.draft import open_tokenizer
from sglang_dflash.tools.train.draft_data import answered
from sglang_dflash.tools.train.draft_io import load_draft
from sglang_dflash.tools.train.features import FeatureStore, StoredTarget
from sglang_dflash.tools.train.frozen import open_target
from sglang_dflash.tools.train.packing import Document
from sglang_dflash.tools.train.replay import Rounds, replay


@dataclass
class KindResult:
    """Figures of one kind."""

    kind: str
    prompts: int
    right: int | None  # None: nobody can judge
    tokens: float  # mean answer length, end token included
    repeated: float  # share of repeated 4-grams
    rounds: Rounds | None
    wrong: list[dict]

    def as_dict(self) -> dict:
        """For JSON output."""
        return {
            "kind": self.kind,
            "prompts": self.prompts,
            "right": self.right,
            "right_share": None if self.right is None else self.right / self.prompts,
            "mean_tokens": self.tokens,
            "repeated_4grams": self.repeated,
            **(rounds_dict(self.rounds) if self.rounds else {}),
            "wrong": self.wrong,
        }


def rounds_dict(rounds: Rounds) -> dict:
    """Accept length, rounds and acceptance by position.

    ``kept_by_position[k]`` is P(slot k + 1 kept | the text went on that far);
    ``kept_given_previous[k]`` is the same given that all slots before were kept.
    """
    kept = [k / max(o, 1) for k, o in zip(rounds.kept, rounds.offered, strict=True)]
    return {
        "accept_length": rounds.accept_length(),
        "rounds": sum(len(lens) for lens in rounds.commit_lens),
        "kept_by_position": kept,
        "kept_given_previous": [k / max(r, 1) for k, r in zip(rounds.kept, rounds.reached, strict=True)],
    }


def evaluate(
    target_name: str,
    draft_folder: Path | None,
    limit: int | None = None,
    kinds: tuple[str, ...] = HELDOUT_KINDS,
    device: str = "cpu",
) -> dict:
    """Results per kind and over all kinds; without a draft only answers are judged."""
    target, tokenizer = open_target(target_name, device), open_tokenizer(target_name)
    draft = load_draft(draft_folder) if draft_folder else None
    if draft:
        draft[0].to(device)
    results = [evaluate_kind(target, tokenizer, draft, load_heldout(k, limit), device) for k in kinds]
    return _results(target_name, draft_folder, results)


def evaluate_store(
    target_name: str,
    draft_folder: Path,
    folder: Path,
    limit: int | None = None,
    compute: torch.dtype = torch.float32,
    device: str = "cpu",
) -> dict:
    """Accept lengths on the held-out documents of a folder of features, whose answers are the target's greedy ones."""
    store = FeatureStore(folder, 0)
    target = StoredTarget(open_target(target_name, device), store, device)
    network, config = load_draft(draft_folder)
    network.to(device)
    settings = config["dflash_config"]
    results = []
    for kind, documents in heldout_kinds(store, limit):
        with torch.autocast(torch.device(device).type, compute, compute != torch.float32):
            rounds = replay(
                target,
                network,
                documents,
                settings["target_layer_ids"],
                config["block_size"],
                settings["mask_token_id"],
                device=device,
            )
        replies = [ids[marks.index(True) :] for ids, marks in documents]
        tokens = sum(map(len, replies)) / len(replies)
        repeated = sum(map(repeated_share, replies)) / len(replies)
        results.append(KindResult(kind, len(documents), None, tokens, repeated, rounds, []))
    return _results(target_name, draft_folder, results)


def heldout_kinds(store: FeatureStore, limit: int | None) -> list[tuple[str, list[Document]]]:
    """The store's held-out documents by kind, ``limit`` of each."""
    if not store.heldout:
        raise DFlashError("data", "holds nothing back", "run train features with a larger --heldout-share")
    return [(kind, documents[:limit]) for kind, documents in sorted(store.heldout.items())]


def _results(target_name: str, draft_folder: Path | None, results: list[KindResult]) -> dict:
    every = Rounds()
    for result in results:
        if result.rounds:
            every.merge(result.rounds)
    lengths = [r.rounds.accept_length() for r in results if r.rounds]
    summary = {"target": target_name, "draft": str(draft_folder) if draft_folder else None}
    if lengths:
        summary |= {"mean_over_kinds": sum(lengths) / len(lengths), **rounds_dict(every)}
    return {"summary": summary, "kinds": [r.as_dict() for r in results]}


def evaluate_kind(target, tokenizer, draft, records: list[dict], device: str) -> KindResult:
    """Generate greedily, judge, and replay the draft over the generated answers."""
    prompts = [
        tokenizer(
            tokenizer.apply_chat_template(r["messages"], tokenize=False, add_generation_prompt=True),
            add_special_tokens=False,
        )["input_ids"]
        for r in records
    ]
    longest = max(len(tokenizer(r["answer"])["input_ids"]) for r in records)
    replies = target.generate(prompts, tokenizer.eos_token_id, longest + 48)
    texts = [tokenizer.decode(reply, skip_special_tokens=True) for reply in replies]
    wrong = [
        {"id": r["id"], "question": r["messages"][-1]["content"], "expected": r["answer"], "given": text}
        for r, text in zip(records, texts, strict=True)
        if not is_right(text, r)
    ]
    rounds = None
    if draft:
        network, config = draft
        settings = config["dflash_config"]
        documents = [answered(p, reply) for p, reply in zip(prompts, replies, strict=True)]
        rounds = replay(
            target,
            network,
            documents,
            settings["target_layer_ids"],
            config["block_size"],
            settings["mask_token_id"],
            device=device,
        )
    tokens = sum(map(len, replies)) / len(replies)
    repeated = sum(repeated_share(reply) for reply in replies) / len(replies)
    right = len(records) - len(wrong)
    return KindResult(records[0]["kind"], len(records), right, tokens, repeated, rounds, wrong)
