"""Do target and draft mean the same tokens and the same dialogue?"""

from collections.abc import Iterator

from sglang_dflash.checkpoints.checks.case import Case
from sglang_dflash.checkpoints.checks.findings import ERROR, NOTE, WARNING, Finding
from sglang_dflash.checkpoints.checks.mask import mask_finding, mask_token_id
from sglang_dflash.checkpoints.checks.tokenizer_files import Texts, thinking_default

# Written like this, a token of the vocabulary proper is a marker all the same.
_MARKERS = (("<", ">"), ("[", "]"), ("<|", "|>"))
_OWN_TABLES = ("embed_tokens.weight", "lm_head.weight")


def wording_findings(case: Case) -> Iterator[Finding]:
    """Everything about tokenizers, mask token, own vocabulary tables and chat templates."""
    yield from _mask(case)
    yield from _tokenizers(case)
    yield from _own_tables(case)
    yield from _templates(case)


def _mask(case: Case) -> Iterator[Finding]:
    texts, size = case.target_texts, case.text.get("vocab_size")
    if texts is None or texts.vocabulary is None:
        if case.draft.mask_token_id is None:
            what = f"is {case.draft.mask_token}, and there is no tokenizer.json to find it in"
            yield Finding("tokenizer-unread", WARNING, "draft mask_token", what, "give a folder with the tokenizer")
        return
    wrong = mask_finding(case.draft, texts.vocabulary, size or 1 << 31)
    if wrong is not None:
        yield wrong
        return
    number = mask_token_id(case.draft, texts.vocabulary, size or 1 << 31)
    if case.draft.mask_token_id is None and case.draft.mask_token not in texts.vocabulary:
        what = f"{case.draft.mask_token} is not in the tokenizer: id {number}, the first behind it, is taken"
        yield Finding("mask-token-missing", WARNING, "draft mask_token", what, "set mask_token_id as in the training")
    yield from _collision(texts, number)


def _collision(texts: Texts, number: int) -> Iterator[Finding]:
    token, field = texts.token(number), "draft mask_token_id"
    role = texts.ends.get(number)
    if role is not None:
        what = f"is {number}, which is the target's {role} as well"
        yield Finding("mask-token-collides", WARNING, field, what, "use the id of the training")
    elif token is not None and number not in texts.added and not _is_marker(token):
        what = f"is {number}, the token {token!r} of ordinary text"
        yield Finding("mask-token-collides", WARNING, field, what, "use the id of the training")


def _is_marker(token: str) -> bool:
    return any(len(token) > 2 and token.startswith(left) and token.endswith(right) for left, right in _MARKERS)


def _tokenizers(case: Case) -> Iterator[Finding]:
    size = case.text.get("vocab_size")
    mine = case.target_texts and case.target_texts.vocabulary
    if not mine:
        return
    if size is not None and max(mine.values()) >= size:
        what = f"has id {max(mine.values())}, the target's embedding has {size} rows"
        yield Finding("tokenizer-too-large", WARNING, "target tokenizer", what, "use the tokenizer of the target")
    its = case.draft_texts and case.draft_texts.vocabulary
    if not its:
        return
    other = next((token for token, number in its.items() if mine.get(token, number) != number), None)
    if other is not None:
        what = f"has {other!r} at {its[other]}, the target's at {mine[other]}"
        remedy = "use the draft that was trained for this target"
        yield Finding("tokenizer-differs", ERROR, "draft tokenizer", what, remedy)
    elif len(its.keys() & mine.keys()) < 0.9 * min(len(its), len(mine)):
        what = f"shares {len(its.keys() & mine.keys())} of {len(its)} tokens with the target's"
        yield Finding("tokenizer-differs", ERROR, "draft tokenizer", what, "use the draft trained for this target")


def _own_tables(case: Case) -> Iterator[Finding]:
    size = case.text.get("vocab_size")
    for name, info in (case.draft_tensors or {}).items():
        fitting = {size, case.draft.draft_vocab_size} if name.endswith("lm_head.weight") else {size}
        if size is not None and name.endswith(_OWN_TABLES) and info.shape[0] not in fitting:
            what = f"has {info.shape[0]} rows, the target's vocabulary {size}"
            yield Finding("draft-own-head", WARNING, f"draft {name}", what, "use the draft of this target")


def _templates(case: Case) -> Iterator[Finding]:
    if case.target_texts is None:
        return
    mine = case.target_texts.chat_template
    its = None if case.draft_texts is None else case.draft_texts.chat_template
    if mine is None:
        what = "is missing: chats will not look as in the draft's training"
        yield Finding("chat-template-missing", NOTE, "target chat template", what, "send whole prompts, or give one")
        return
    if its is not None and its.split() != mine.split():
        what = "is not the target's"
        remedy = "serve with --chat-template of the draft if it was trained so"
        yield Finding("chat-template-differs", WARNING, "draft chat template", what, remedy)
    yield from _thinking(case, mine)


def _thinking(case: Case, template: str) -> Iterator[Finding]:
    entry = case.draft_entry or case.target_entry
    trained = entry.thinking if entry else "unknown"
    if trained == "unknown":
        return
    default = thinking_default(template)
    served, severity = (case.plan.thinking, WARNING) if case.plan.thinking else (default, NOTE)
    if served is None or served == trained:
        return
    what = f"is {served}, the draft was trained with thinking {trained}"
    value = "true" if trained == "on" else "false"
    remedy = f'send "chat_template_kwargs": {{"enable_thinking": {value}}}'
    yield Finding("thinking-mode", severity, "thinking", what, remedy)
