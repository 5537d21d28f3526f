"""The draft config: every published spelling means the same, and what is wrong is named."""

import json

import published_drafts
import pytest
from published_drafts import plain

from sglang_dflash.checkpoints.config import (
    Convolution,
    LayerAttention,
    Selector,
    from_speculators,
    is_speculators,
    load_draft_config,
    local_folder,
    mask_embedding_file,
    parse_draft_config,
    spaced_layer_ids,
)
from sglang_dflash.errors import DFlashError

BIDIRECTIONAL = LayerAttention(window=None, causal=False)


@pytest.mark.parametrize("name", published_drafts.ALL)
def test_published_drafts_are_told_apart(name):
    raw, variant = published_drafts.ALL[name]
    assert parse_draft_config(raw).unsupported_variant == variant


@pytest.mark.parametrize("name", [name for name, (_, variant) in published_drafts.ALL.items() if variant is None])
def test_a_config_read_by_transformers_means_the_same(name):
    raw = published_drafts.ALL[name][0]
    seen = from_speculators(raw) if is_speculators(raw) else dict(raw)
    again = config_class(seen["model_type"]).from_dict(seen).to_dict() | {"architectures": raw["architectures"]}
    assert parse_draft_config(again) == parse_draft_config(raw)


def config_class(model_type: str) -> type:
    """The class through which SGLang reads a draft's config."""
    if model_type == "laguna":
        from sglang.srt.configs.laguna import LagunaConfig

        return LagunaConfig
    from transformers import CONFIG_MAPPING

    return CONFIG_MAPPING[model_type]


def test_first_generation():
    draft = parse_draft_config(published_drafts.QWEN3_8B)
    assert (draft.hidden_size, draft.num_layers, draft.num_heads, draft.num_kv_heads, draft.head_dim) == (
        4096,
        5,
        32,
        8,
        128,
    )
    assert draft.layers == (BIDIRECTIONAL,) * 5
    assert (draft.block_size, draft.mask_token_id, draft.target_layer_ids) == (16, 151669, (1, 9, 17, 25, 33))
    assert (draft.rope.theta, draft.rope.scaling) == (1e6, None)
    assert draft.num_context_features == 5


def test_second_generation_nests_and_slides():
    draft = parse_draft_config(published_drafts.QWEN35_27B)
    assert draft.layers == (LayerAttention(window=4096, causal=True),) * 5 + (BIDIRECTIONAL,)
    assert (draft.block_size, draft.num_context_features, draft.rope.theta) == (16, 8, 1e7)
    assert max(layer.window or 0 for layer in draft.layers) == 4096


def test_own_fields_at_the_top_level_or_nested():
    nested = plain()
    flat = plain(**nested["dflash_config"])
    del flat["dflash_config"]
    assert parse_draft_config(flat) == parse_draft_config(nested)
    both = plain(mask_token_id=7, block_size=4, dflash_config=nested["dflash_config"] | {"block_size": 8})
    draft = parse_draft_config(both)
    assert (draft.mask_token_id, draft.block_size) == (151669, 8)


@pytest.mark.parametrize("key", ["rope_scaling", "rope_parameters"])
@pytest.mark.parametrize("kind", ["type", "rope_type"])
def test_rope_scaling_in_all_spellings(key, kind):
    scaling = {kind: "yarn", "factor": 32.0, "original_max_position_embeddings": 4096}
    raw = plain(**{key: scaling | ({"rope_theta": 150000} if key == "rope_parameters" else {})}, rope_theta=150000)
    draft = parse_draft_config(raw)
    assert draft.rope.theta == 150000
    assert draft.rope.scaling == {
        "rope_type": "yarn",
        "factor": 32.0,
        "original_max_position_embeddings": 4096,
    }


def test_default_rope_with_the_targets_mrope_keys_is_no_scaling():
    parameters = {"rope_type": "default", "rope_theta": 5e5, "mrope_section": [11, 11, 10]}
    draft = parse_draft_config(plain(rope_parameters=parameters))
    assert (draft.rope.theta, draft.rope.scaling, draft.rope.rotary_dim) == (5e5, None, 128)


@pytest.mark.parametrize("causal", [True, False])
def test_is_causal_overrides_every_layer(causal):
    types = ["sliding_attention", "full_attention"]
    draft = parse_draft_config(
        plain(
            num_hidden_layers=2,
            layer_types=types,
            sliding_window=8,
            use_sliding_window=True,
            is_causal=causal,
        )
    )
    assert [layer.causal for layer in draft.layers] == [causal, causal]
    assert [layer.window for layer in draft.layers] == [8, None]


def test_absent_fields_have_the_published_defaults():
    raw = plain()
    for key in ("block_size", "dflash_config", "num_target_layers", "head_dim", "vocab_size"):
        del raw[key]
    draft = parse_draft_config(raw)
    assert (draft.block_size, draft.mask_token, draft.mask_token_id) == (16, "<|MASK|>", None)
    assert (draft.target_layer_ids, draft.num_context_features, draft.head_dim) == (None, 5, 128)
    assert draft.layer_ids_for(36) == (1, 9, 17, 25, 33)


@pytest.mark.parametrize(
    ("depth", "count", "ids"),
    [
        (36, 5, (1, 9, 17, 25, 33)),
        (64, 5, (1, 16, 31, 46, 61)),
        (40, 5, (1, 10, 19, 28, 37)),
        (62, 5, (1, 16, 30, 44, 59)),
        (61, 6, (1, 12, 24, 35, 47, 58)),
        (64, 8, (1, 10, 18, 27, 35, 44, 52, 61)),
        (28, 1, (14,)),
    ],
)
def test_the_spacing_rule_gives_the_published_layers(depth, count, ids):
    assert spaced_layer_ids(depth, count) == ids


def test_mimo_slides_by_its_own_keys_and_rotates_half():
    draft = parse_draft_config(published_drafts.MIMO_25_PRO)
    assert draft.layers == (LayerAttention(window=1024, causal=False),) * 5
    assert (draft.rope.rotary_dim, draft.attention_sinks, draft.value_scale) == (64, True, 0.612)


def test_laguna_is_causal_by_its_nested_flag():
    draft = parse_draft_config(published_drafts.LAGUNA_XS)
    assert draft.layers == (LayerAttention(window=512, causal=True),) * 5
    assert (draft.gate, draft.norms_taps, draft.norms_context, draft.draft_vocab_size) == ("per-head", True, True, None)
    assert (draft.ships_embedding, draft.ships_head) == (False, False)


def test_muse_looks_both_ways():
    assert parse_draft_config(published_drafts.MUSE_30B).layers == (LayerAttention(2048, False),) * 5


def test_dflash_2_has_convolution_and_selector():
    draft = parse_draft_config(published_drafts.QWEN38_27B_DFLASH2)
    assert (draft.convolution, draft.selector) == (Convolution(2, 16), Selector(256, 16))
    assert draft.layers == (LayerAttention(2048, False),) * 5


def test_nemotron_ships_its_embedding_and_quantised_weights():
    draft = parse_draft_config(published_drafts.NEMOTRON_35)
    assert (draft.ships_embedding, draft.ships_head, draft.optional_ends) == (True, False, False)
    assert (draft.quantisation, draft.block_size, draft.rope.scaling["factor"]) == ("modelopt", 16, 128.0)
    assert draft.layers == (BIDIRECTIONAL,) * 6


def test_speculators_count_layers_from_the_embedding():
    draft = parse_draft_config(published_drafts.SPECULATORS)
    assert draft.target_layer_ids == (0, 16, 28, 46, 57)
    assert (draft.block_size, draft.mask_token_id, draft.hidden_size, draft.head_dim) == (8, 4, 5376, 256)
    assert draft.draft_vocab_size == 32000
    assert draft.ships_embedding and draft.ships_head and draft.optional_ends


def test_speculators_leave_out_what_is_default():
    """Their layers are saved as differences from transformers' class."""
    layers = {"model_type": "qwen3", "num_hidden_layers": 5, "num_key_value_heads": 8}
    draft = parse_draft_config(published_drafts.SPECULATORS | {"transformer_layer_config": layers})
    assert (draft.hidden_size, draft.num_heads, draft.head_dim, draft.vocab_size) == (4096, 32, 128, 151936)
    windows = layers | {"layer_types": ["sliding_attention"] * 5, "use_sliding_window": True, "sliding_window": 64}
    raw = published_drafts.SPECULATORS | {"transformer_layer_config": windows}
    assert parse_draft_config(raw).layers == (LayerAttention(64, True),) * 5
    assert parse_draft_config(raw | {"sliding_window_non_causal": True}).layers == (LayerAttention(64, False),) * 5


@pytest.mark.parametrize("model_type", ["gemma4", "llama", "qwen3_moe", "a-new-one"])
def test_speculators_layers_may_be_described_with_any_targets_class(model_type):
    layers = published_drafts.SPECULATORS["transformer_layer_config"] | {"model_type": model_type}
    draft = parse_draft_config(published_drafts.SPECULATORS | {"transformer_layer_config": layers})
    assert draft == parse_draft_config(published_drafts.SPECULATORS)


def test_a_speculators_export_with_z_labs_fields_is_read_by_those():
    raw = published_drafts.QWEN38_27B_DFLASH2 | {
        "speculators_model_type": "dflash2",
        "transformer_layer_config": {"hidden_size": 1},
        "aux_hidden_state_layer_ids": [6, 20, 34, 48, 62],
    }
    draft = parse_draft_config(raw)
    assert (draft.hidden_size, draft.target_layer_ids[0], draft.ships_head) == (5120, 5, True)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"speculators_model_type": "eagle3"}, "draft speculators_model_type: is 'eagle3'"),
        ({"aux_hidden_state_layer_ids": [0, 3]}, "draft aux_hidden_state_layer_ids: hold 0"),
        ({"aux_hidden_state_layer_ids": None}, "draft aux_hidden_state_layer_ids: are None"),
        ({"target_hidden_size": 7}, "draft target_hidden_size: is 7"),
        ({"sample_from_anchor": True}, "draft sample_from_anchor: is true"),
        ({"dflash_gated_layer_fusion": True}, "draft dflash_gated_layer_fusion: is not supported"),
    ],
)
def test_speculators_errors_name_the_field(fields, named):
    with pytest.raises(DFlashError) as caught:
        parse_draft_config(published_drafts.SPECULATORS | fields)
    assert str(caught.value).startswith(named) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"hidden_size": None}, "draft hidden_size: is missing"),
        ({"num_hidden_layers": 0}, "draft num_hidden_layers: is 0"),
        ({"num_attention_heads": "32"}, "draft num_attention_heads: is '32'"),
        ({"block_size": 1}, "draft block_size: is 1"),
        ({"block_size": 16.0}, "draft block_size: is 16.0"),
        ({"block_size": True}, "draft block_size: is True"),
        ({"dflash_config": {"mask_token_id": -1}}, "draft mask_token_id: is -1"),
        ({"dflash_config": {"mask_token": ""}}, "draft mask_token: is ''"),
        ({"dflash_config": {"target_layer_ids": []}}, "draft target_layer_ids: are []"),
        ({"dflash_config": {"target_layer_ids": [1, "9"]}}, "draft target_layer_ids: are [1, '9']"),
        ({"dflash_config": [1]}, "draft dflash_config: is [1]"),
        ({"layer_types": ["full_attention"]}, "draft layer_types:"),
        ({"layer_types": ["chunked"] * 5}, "draft layer_types: holds 'chunked'"),
        ({"layer_types": ["sliding_attention"] * 5}, "draft sliding_window: is missing"),
        ({"rms_norm_eps": 0}, "draft rms_norm_eps: is 0"),
        ({"architectures": ["LlamaForCausalLM"]}, "draft architectures: is ['LlamaForCausalLM']"),
        ({"architectures": ["DFlash2DraftModel"]}, "draft selector_rank: is missing"),
        ({"selector_rank": 8}, "draft selector_rank: is 8 beside selector_top_k 0"),
        ({"selector_rank": 8, "selector_top_k": 200000}, "draft selector_top_k: is 200000 of a vocabulary"),
        ({"conv_kernel_size": 2, "conv_group_size": 7}, "draft conv_group_size: is 7"),
        ({"attention_sink_bias": 1}, "draft attention_sink_bias: is 1"),
        ({"hidden_act": "gelu"}, "draft hidden_act: is 'gelu'"),
        ({"use_qk_norm": False}, "draft use_qk_norm: is false"),
        ({"projector_type": "weaver"}, "draft projector_type: is 'weaver'"),
        ({"sample_from_anchor": True}, "draft sample_from_anchor: is true"),
        ({"partial_rotary_factor": 0.305}, "draft partial_rotary_factor: rotates 39 of 128 channels"),
        ({"draft_vocab_size": 32000}, "draft draft_vocab_size: is 32000, but the draft ships no head"),
        ({"architectures": ["DFlashLagunaForCausalLM"], "gating": "odd"}, "draft gating: is 'odd'"),
    ],
)
def test_errors_name_the_field(fields, named):
    with pytest.raises(DFlashError) as caught:
        parse_draft_config(plain(**fields))
    assert str(caught.value).startswith(named) and "\n" not in str(caught.value)


def test_loading_from_a_folder(tmp_path):
    with pytest.raises(DFlashError, match="has no config.json"):
        load_draft_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(DFlashError, match="not valid json"):
        load_draft_config(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(plain()))
    assert load_draft_config(tmp_path) == load_draft_config(plain())
    assert mask_embedding_file(tmp_path) is None
    (tmp_path / "mask_embedding.pt").touch()
    assert mask_embedding_file(tmp_path) == tmp_path / "mask_embedding.pt"


def test_a_repository_that_is_not_here_is_no_error(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert load_draft_config("z-lab/Qwen3-8B-DFlash-b16") is None
    assert local_folder("s3://bucket/draft") is None
    for path in (str(tmp_path / "nowhere"), "./nowhere", "a/b/c"):
        with pytest.raises(DFlashError, match="is no folder"):
            local_folder(path)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A hub cache off the network with revisions ``old`` and ``new`` of org/draft; only the new one has the file."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    repository = tmp_path / "models--org--draft"
    (repository / "refs").mkdir(parents=True)
    for number, revision in enumerate(("old", "new")):
        commit = f"{number:040x}"
        (repository / "refs" / revision).write_text(commit)
        (repository / "snapshots" / commit).mkdir(parents=True)
        (repository / "snapshots" / commit / "config.json").write_text(json.dumps(plain()))
    (repository / "snapshots" / commit / "mask_embedding.pt").touch()
    return repository


def test_a_mask_embedding_is_that_of_the_revision(hub, caplog):
    found = mask_embedding_file("org/draft", "new")
    assert found is not None and found.parent.name == f"{1:040x}"
    assert mask_embedding_file("org/draft", "old") is None
    assert caplog.messages == ["sglang-dflash: org/draft cannot be asked for its mask_embedding.pt now"]


@pytest.mark.parametrize(("error", "told"), [("RemoteEntryNotFoundError", False), ("HfHubHTTPError", True)])
def test_a_mask_embedding_is_fetched(monkeypatch, caplog, tmp_path, error, told):
    import httpx
    from huggingface_hub import errors

    def fetch(source, name, revision):
        if revision == "none":
            raise getattr(errors, error)("no", response=httpx.Response(404, request=httpx.Request("GET", "http://h")))
        return str(tmp_path / source / name / revision)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetch)
    assert mask_embedding_file("org/draft", "v2") == tmp_path / "org/draft" / "mask_embedding.pt" / "v2"
    assert mask_embedding_file("org/draft", "none") is None and bool(caplog.messages) is told
    assert mask_embedding_file("s3://bucket/draft") is None


def test_sglang_gets_speculators_configs_as_z_labs(tmp_path):
    from sglang_dflash.plugin.draft_config import parse_config

    def original(parser, model, **more):
        return f"{parser} reads {model}"

    (tmp_path / "config.json").write_text(json.dumps(published_drafts.SPECULATORS))
    config = parse_config(original, "SGLang", str(tmp_path), True)
    assert (config.model_type, config.architectures) == ("qwen3", ["DFlashDraftModel"])
    assert parse_draft_config(config.to_dict()) == parse_draft_config(published_drafts.SPECULATORS)
    for other in (plain(), published_drafts.SPECULATORS | {"speculators_model_type": "eagle3"}):
        (tmp_path / "config.json").write_text(json.dumps(other))
        assert parse_config(original, "SGLang", str(tmp_path), True) == f"SGLang reads {tmp_path}"
