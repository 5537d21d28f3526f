"""Every kind of draft: a block in SGLang's layers is the block of the plain torch reference, and of SGLang's class."""

from types import SimpleNamespace

import kinds
import pytest
import torch
from kinds import BLOCK, HIDDEN, KINDS, TAPS, Bench

from sglang_dflash.reference import ReferenceKind

PREFIXES = [11, 19]
ANCHORS = [5, 40]


def contexts() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(n, len(TAPS) * HIDDEN, generator=generator) for n in PREFIXES]


def block_ids() -> torch.Tensor:
    return torch.tensor([[anchor] + [3] * (BLOCK - 1) for anchor in ANCHORS]).view(-1)


def served(config, tensors, ends_of):
    """-> hidden states [2, B, hidden] and drafted tokens [2, B - 1] of two requests' blocks."""
    model, bench = kinds.loaded(config, tensors, ends_of), Bench()
    bench.inject(model, contexts())
    forward_batch, ids = bench.batch(PREFIXES), block_ids()
    with bench.serving(forward_batch):
        hidden = model.decode(ids, forward_batch.positions, forward_batch, model.forward_embed(ids))
    with bench.serving(forward_batch):
        tokens = model(ids, forward_batch.positions, forward_batch).hidden_states
    return hidden.view(2, BLOCK, -1), tokens.view(2, BLOCK)[:, 1:]


@pytest.mark.parametrize("name", KINDS)
def test_a_block_is_the_references(name, tmp_path):
    config, ends_of = KINDS[name], kinds.target()
    tensors = kinds.tensors_of(config)
    reference = ReferenceKind(kinds.write(tmp_path, config, tensors))
    # Ends that a draft does not ship are the target's, called as transformers would.
    as_transformers = SimpleNamespace(**vars(ends_of))
    hidden, tokens = served(config, tensors, ends_of)
    for row, context in enumerate(contexts()):
        reference.reset()
        reference.inject(context)
        block = block_ids().view(2, BLOCK)[row]
        with torch.no_grad():
            wanted = reference.forward(reference.embed(as_transformers, block))
            torch.testing.assert_close(hidden[row], wanted, rtol=2e-5, atol=2e-5)
            assert tokens[row].tolist() == reference.guess(as_transformers, wanted, ANCHORS[row]).tolist()


# What SGLang's own class reads of a config, and runs on a host.
BUILTIN = {
    "plain": {},
    "windows, the last layer full": {},
    "windows both ways": {},
    "all causal": {},
    "yarn and biases": {},
    # It leaves the two windows keys alone.
    "mimo": {"use_swa": False},
    # It leaves the direction there alone, and its own for windows is the same.
    "laguna": {},
    "laguna, gate per channel": {},
    "gemma norms": {},
    "dflash 2": {},
    "dflash 2, beam": {},
}


@pytest.mark.parametrize("name", BUILTIN)
def test_a_block_is_that_of_sglangs_own_class(name, monkeypatch):
    config = KINDS[name] | {"dflash_config": KINDS[name]["dflash_config"] | BUILTIN[name]}
    tensors, ends_of, bench = kinds.tensors_of(config), kinds.target(), Bench()
    hidden, tokens = served(config, tensors, ends_of)
    theirs, ids, forward_batch = builtin(config, tensors, monkeypatch), block_ids(), bench.batch(PREFIXES)
    embedded = ends_of.get_input_embeddings()(ids)
    with bench.serving(forward_batch), torch.compiler.set_stance("force_eager"):
        inject_as_builtin(theirs, bench)
        wanted = theirs(ids, forward_batch.positions, forward_batch, input_embeds=embedded).hidden_states
        wanted_tokens = builtin_tokens(theirs, wanted, ends_of)
    torch.testing.assert_close(hidden.view(2 * BLOCK, -1), wanted, rtol=2e-5, atol=2e-5)
    assert tokens.tolist() == wanted_tokens.tolist()


def builtin(config, tensors, monkeypatch):
    from sglang.srt.models import dflash
    from test_config import config_class

    monkeypatch.setattr(dflash, "_flashinfer_top_k", None)  # it asks for CUDA
    with kinds.single_rank():
        model = getattr(dflash, config["architectures"][0])(config_class(config["model_type"]).from_dict(dict(config)))
    model.load_weights(tensors.items())
    return model.eval()


def inject_as_builtin(model, bench: Bench) -> None:
    for row, context in enumerate(contexts()):
        fused, slots = model.project_target_hidden(context), bench.table[row, : len(context)].long()
        for layer in model.layers:
            attention = layer.self_attn
            k, v = attention.kv_proj_only(model.prepare_context_hidden_for_kv(layer, fused))
            k = attention.apply_k_rope(torch.arange(len(context)), attention.apply_k_norm(k))
            k, v = (x.view(-1, kinds.KV_HEADS, kinds.HEAD_DIM) for x in (k, v))
            bench.pool.write(attention.attn.layer_id, slots, k, v)


def builtin_tokens(model, hidden, ends_of) -> torch.Tensor:
    """SGLang's greedy proposal [2, B - 1] for hidden states [2 * B, hidden]."""
    hidden = hidden.view(2, BLOCK, -1)[:, 1:]
    selector = model.candidate_selector
    if selector is None:
        return ends_of.lm_head(hidden).argmax(-1)
    model.lm_head = SimpleNamespace(weight=ends_of.lm_head.weight, org_vocab_size=kinds.VOCAB)
    ids, logits = model.compute_candidates(hidden.reshape(-1, HIDDEN))
    ids = ids.view(2, BLOCK - 1, -1)
    scores = selector.build_lattice(
        candidate_ids=ids,
        unary_logits=logits.view(2, BLOCK - 1, -1),
        hidden_states=hidden,
        anchor_token_ids=torch.tensor(ANCHORS),
    )
    tokens, _ = selector.sample_path(
        candidate_ids=ids,
        scores=scores,
        uniforms=torch.rand(2, BLOCK - 1),
        temperatures=torch.ones(2),
        greedy_mask=torch.ones(2, dtype=torch.bool),
    )
    return tokens


def test_muse_is_transformers_own_class():
    """Without its last window: transformers counts a window that is open on both sides one token wider."""
    from transformers import MuseGlimmerAssistantConfig, MuseGlimmerAssistantModel

    config = KINDS["muse"] | {"sliding_window": 64}
    tensors, ends_of = kinds.tensors_of(config), kinds.target()
    hidden, _ = served(config, tensors, ends_of)
    other = ("architectures", "model_type", "dflash_config", "rope_theta")
    fields = {k: v for k, v in config.items() if k not in other}
    rope = {"rope_type": "default", "rope_theta": config["rope_theta"]}
    own = MuseGlimmerAssistantConfig(**fields, target_layer_ids=TAPS, mask_token_id=3, rope_parameters=rope)
    model = MuseGlimmerAssistantModel(own).eval()
    renamed = {"fc.weight": "encoder.fc.weight", "hidden_norm.weight": "encoder.output_norm_enc.weight"}
    model.load_state_dict({renamed.get(name, name): tensor for name, tensor in tensors.items()})
    embedded = ends_of.get_input_embeddings()(block_ids()).view(2, BLOCK, -1)
    for row, context in enumerate(contexts()):
        with torch.no_grad():
            wanted = model(noise_embeds=embedded[row : row + 1], context_hidden_states=context[None])
        torch.testing.assert_close(hidden[row], wanted.last_hidden_state[0], rtol=2e-5, atol=2e-5)
