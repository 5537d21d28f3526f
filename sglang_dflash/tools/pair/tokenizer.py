"""Byte-level BPE tokenizer of the embedded pair: one id per word of the closed vocabulary.

Words are looked up whole (``ignore_merges``), anything else falls back to bytes.
Digits, punctuation and Roman letters stand alone; a capitalised word never swallows
its leading space, so a copied word has the same id in prompt and answer.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers

from sglang_dflash.tools.pair import PAIR_DIR

PAD, USER, ASSISTANT, END, MASK = range(5)
SPECIAL = ("<|pad|>", "<|user|>", "<|assistant|>", "<|end|>", "<|mask|>")
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] in ('user', 'assistant') -%}"
    "{{- '<|' + message['role'] + '|>' + message['content'] + '<|end|>' -}}"
    "{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)
_PIECE = r"\n +| ?[a-z]+|[A-Z][a-z]*|[0-9]|\n| +|[^A-Za-z0-9\n ]"
_MAX_VOCAB = 1024
# Pieces that the generators wrote at least four times, most frequent first; frozen, so that ids stay what weights know.
WORDS_FILE = PAIR_DIR / "weights" / "words.json"


def build_tokenizer() -> Tokenizer:
    """Tokenizer with specials first, then the 256 bytes, then whole words."""
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: i for i, token in enumerate((*SPECIAL, *alphabet))}
    for word in json.loads(WORDS_FILE.read_text()):
        spelled = "".join(piece for piece, _ in level.pre_tokenize_str(word))
        if spelled not in vocab and len(vocab) < _MAX_VOCAB:
            vocab[spelled] = len(vocab)
    while len(vocab) % 32:
        vocab[f"<|reserved_{len(vocab)}|>"] = len(vocab)
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(_PIECE), behavior="isolated"), level])
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    return tokenizer


def save_tokenizer(folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and the chat template in Hugging Face layout."""
    from transformers import PreTrainedTokenizerFast

    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=build_tokenizer(),
        eos_token=SPECIAL[END],
        pad_token=SPECIAL[PAD],
        mask_token=SPECIAL[MASK],
        additional_special_tokens=[SPECIAL[USER], SPECIAL[ASSISTANT]],
        model_max_length=4096,
    )
    wrapped.chat_template = CHAT_TEMPLATE
    wrapped.save_pretrained(folder)


def encode_chat(tokenizer: Tokenizer, turns: list[tuple[str, str]]) -> tuple[list[int], list[bool]]:
    """Ids of a finished chat and, per id, whether it belongs to an answer (its end token included)."""
    ids: list[int] = []
    answer: list[bool] = []
    for question, reply in turns:
        ask = [USER, *tokenizer.encode(question).ids, END, ASSISTANT]
        tell = [*tokenizer.encode(reply).ids, END]
        ids += ask + tell
        answer += [False] * len(ask) + [True] * len(tell)
    return ids, answer


def encode_prompt(tokenizer: Tokenizer, question: str) -> list[int]:
    """Ids of a one-turn prompt, ready for the answer."""
    return [USER, *tokenizer.encode(question).ids, END, ASSISTANT]
