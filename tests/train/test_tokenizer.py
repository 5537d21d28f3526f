"""The tokenizer: lossless, one id per copied word, template and encoder agree."""

import pytest

from sglang_dflash.tools.pair.stream import TrainingStream
from sglang_dflash.tools.pair.tokenizer import MASK, build_tokenizer, encode_chat, encode_prompt, save_tokenizer
from sglang_dflash.tools.pair.vocabulary import COPIED


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


def test_any_text_survives(tokenizer):
    for text in ("Grüße, 世界!\t\n  x", "def f():\n    return 1\n", "  two  spaces ", "🙂 emoji", "ABC dEf"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_copied_words_have_one_id_wherever_they_stand(tokenizer):
    for word in COPIED:
        (alone,) = tokenizer.encode(word).ids
        for around in (" {}", ",{}", '"{}"', "| {} |", "\n{}"):
            assert alone in tokenizer.encode(around.format(word)).ids


def test_vocabulary_is_small_and_the_mask_is_a_real_id(tokenizer):
    assert tokenizer.get_vocab_size() <= 1024
    assert tokenizer.id_to_token(MASK) == "<|mask|>"


def test_chat_template_equals_the_training_encoder(tmp_path, tokenizer):
    from transformers import AutoTokenizer

    save_tokenizer(tmp_path)
    hub = AutoTokenizer.from_pretrained(tmp_path)
    stream = TrainingStream(9)
    for _ in range(100):
        _, turns = stream.next_chat()
        messages = [
            {"role": role, "content": text}
            for turn in turns
            for role, text in zip(("user", "assistant"), turn, strict=True)
        ]
        text = hub.apply_chat_template(messages, tokenize=False)
        assert hub(text, add_special_tokens=False)["input_ids"] == encode_chat(tokenizer, turns)[0]
        prompt = hub.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
        assert hub(prompt)["input_ids"] == encode_prompt(tokenizer, turns[0][0])
    assert hub.decode(hub("Hi there")["input_ids"]) == "Hi there"
    assert (hub.eos_token, hub.mask_token_id) == ("<|end|>", MASK)
