"""Weight updates without a server: addresses, what is kept and put back, what follows from weights."""

from types import SimpleNamespace

import pytest
import torch
from rooms import CONFIG, HIDDEN, Pool, checkpoint, draft_model, one_rank, runner, unloaded_draft
from torch import nn

from sglang_dflash.engine.commit.inject import ContextInjector
from sglang_dflash.engine.draft.ends import build_ends, release_copies
from sglang_dflash.engine.updates.addresses import own_name, owner
from sglang_dflash.engine.updates.derived import after_updates, recompute_derived
from sglang_dflash.engine.updates.files import DraftFiles
from sglang_dflash.engine.updates.payloads import addressed, names_of
from sglang_dflash.engine.updates.roles import WeightUpdates
from sglang_dflash.engine.updates.saved import SavedWeights
from sglang_dflash.errors import DFlashError

LAYER = "layers.0.mlp.up_proj.weight"


# --- whose a tensor is ---


@pytest.mark.parametrize(
    ("name", "selector", "target", "draft"),
    [
        (f"model.{LAYER}", "all", f"model.{LAYER}", None),
        (LAYER, "all", LAYER, None),
        (f"draft.{LAYER}", "all", None, LAYER),
        ("draft.model.fc.weight", "all", None, "model.fc.weight"),
        ("lm_head.weight", "all", "lm_head.weight", None),
    ],
)
def test_in_an_update_to_all_the_prefix_decides(name, selector, target, draft):
    assert own_name(name, "target", selector) == target
    assert own_name(name, "draft", selector) == draft


def test_in_an_update_of_one_every_tensor_is_its():
    assert own_name(LAYER, "draft", "draft") == LAYER
    assert own_name(f"draft.{LAYER}", "draft", "draft") == LAYER
    assert own_name(LAYER, "target", "target") == LAYER


@pytest.mark.parametrize(
    ("name", "selector"), [("fc.weight", "all"), ("model.hidden_norm.weight", "target"), (f"draft.{LAYER}", "target")]
)
def test_a_draft_on_its_way_to_the_target_is_stopped(name, selector):
    with pytest.raises(DFlashError, match="draft"):
        own_name(name, "target", selector)


def test_both_forms_of_a_payload_are_split_alike():
    pick = {"a": "x", "c": "c"}.get
    assert addressed([("a", 1), ("b", 2), ("c", 3)], pick) == [("x", 1), ("c", 3)]
    rows = [SimpleNamespace(name=name, start_idx=i) for i, name in enumerate("abc")]
    flat = addressed({"flattened_tensor": 0, "metadata": rows}, pick)
    assert names_of(flat) == ["x", "c"] and [row.start_idx for row in flat["metadata"]] == [0, 2]
    assert rows[0].name == "a"
    assert addressed([("b", 2)], pick) is None and addressed({"metadata": rows[1:2]}, pick) is None


def test_a_config_tells_whose_a_checkpoint_is():
    assert owner(CONFIG) == "draft"
    assert owner({"speculators_model_type": "dflash", "transformer_layer_config": {}}) == "draft"
    assert owner({"architectures": ["Qwen3ForCausalLM"]}) == "target"


# --- what is kept and put back ---


class Layers(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(3, 2), nn.Linear(3, 2)
        self.second.weight = self.first.weight  # tied
        self.register_buffer("table", torch.arange(4.0))
        self.absorbed = self.first.weight.data.t().contiguous()  # neither parameter nor buffer


def test_everything_is_put_back_where_it_was():
    model = Layers()
    places = {name: tensor.data_ptr() for name, tensor in model.state_dict().items()}
    values = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    absorbed, weight = model.absorbed, model.first.weight
    before = absorbed.clone()
    saved = SavedWeights(model)
    with torch.no_grad():
        model.table.zero_()
        model.second.weight.zero_()
        absorbed.fill_(7)
    model.absorbed = torch.zeros(1)
    model.first.bias.data = torch.zeros(2)  # other memory
    model.first.weight = nn.Parameter(torch.zeros(5))  # another object
    saved.restore()
    assert model.absorbed is absorbed and torch.equal(absorbed, before)
    assert model.first.weight is weight and model.second.weight is weight
    assert {name: tensor.data_ptr() for name, tensor in model.state_dict().items()} == places
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, values[name])


def test_equal_memory_is_kept_once():
    saved = SavedWeights(Layers())
    assert len({kept.content.data_ptr() for kept in saved._kept}) == len(saved._kept) - 1


# --- the draft's own updates ---


def served_draft(config=CONFIG, seed: int = 0):
    model = draft_model(config, seed)
    model.bind(object(), 4, "test")
    return model


def snapshot(model) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize(
    "last", [("layers.9.mlp.up_proj.weight", torch.zeros(2)), ("norm.weight", torch.zeros(HIDDEN + 1))]
)
def test_an_update_is_checked_before_anything_changes(last):
    model = served_draft()
    before = snapshot(model)
    with pytest.raises(DFlashError, match=last[0]):
        model.load_weights([*checkpoint(seed=3).items(), last])
    assert same(before, snapshot(model))


def test_a_checkpoint_folder_has_to_be_complete():
    model, tensors = served_draft(), checkpoint(seed=3)
    del tensors["norm.weight"]
    with model.loading_whole(), pytest.raises(DFlashError, match="lacks norm.weight"):
        model.load_weights(tensors.items())
    model.load_weights(tensors.items())
    assert torch.equal(model.fc.weight, tensors["fc.weight"])


def test_without_weights_at_the_start_any_part_may_come_first():
    """--load-format dummy binds a draft that loaded nothing."""
    model = unloaded_draft()
    model.bind(object(), 4, "test")
    for name, tensor in checkpoint(seed=3).items():
        model.load_weights([(name, tensor)])
    assert same(snapshot(draft_model(seed=3)), snapshot(model))


# --- ends that are shared with the target ---

OWN = CONFIG | {"has_embed_tokens": True, "has_lm_head": True, "mask_token_id": 3}


class Table(nn.Module):
    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)

    def forward(self, ids):
        return self.weight[ids]


class Target(nn.Module):
    def __init__(self, embedding, head):
        super().__init__()
        self.embed, self.lm_head = Table(embedding), Table(head)

    def get_input_embeddings(self):
        return self.embed


@pytest.fixture
def sharing():
    """A draft with ends of its own, equal to the target's, and its target."""
    tensors, model = checkpoint(OWN), draft_model(OWN)
    target = Target(*(getattr(model, name).weight.detach().clone() for name in ("embed_tokens", "lm_head")))
    release_copies(model, target)
    model.bind(object(), 4, "test")
    return model, target, tensors


def test_copies_are_released_and_follow_the_target(sharing):
    model, target, tensors = sharing
    assert model.embed_tokens is None and model.lm_head is None
    assert not any("embed" in name or "lm_head" in name for name, _ in model.named_parameters())
    # Equal ones may be pushed again, and others once the target has them.
    with model.loading_whole():
        model.load_weights(tensors.items())
    head = torch.randn_like(tensors["lm_head.weight"])
    target.lm_head.weight.data[: len(head)] = head
    model.load_weights([("lm_head.weight", head)])


@pytest.mark.parametrize("name", ["lm_head.weight", "embed_tokens.weight"])
def test_an_end_that_nobody_would_read_is_not_swallowed(sharing, name):
    model, _, tensors = sharing
    before = snapshot(model)
    with pytest.raises(DFlashError, match=f"{name}: differs from the target's.*SGLANG_DFLASH_SHARE_ENDS=off"):
        model.load_weights([("fc.weight", 1 + tensors["fc.weight"]), (name, 1 + tensors[name])])
    assert same(before, snapshot(model))


def test_ends_of_ones_own_are_updated_in_place():
    model = draft_model(OWN)
    model.bind(object(), 4, "test")
    place, tensors = model.lm_head.weight.data_ptr(), checkpoint(OWN, seed=3)
    model.load_weights(tensors.items())
    rows = tensors["lm_head.weight"]
    assert model.lm_head.weight.data_ptr() == place and torch.equal(model.lm_head.weight[: len(rows)], rows)


# --- what follows from weights ---


def test_recomputing_is_registered_by_whoever_computed():
    model, done = nn.Linear(2, 2), []
    after_updates(model, lambda: done.append("first"))
    after_updates(model, lambda: done.append("second"))
    recompute_derived(model)
    recompute_derived(nn.Linear(2, 2))
    assert done == ["first", "second"]


class Own:
    """SGLang's updater of a runner: copies, or fails half way."""

    def __init__(self, model):
        self._model = model

    def update_weights_from_tensor(self, named_tensors, load_format):
        if load_format == "direct":
            for name, tensor in named_tensors:
                self._model.get_parameter(name).data.copy_(tensor)
            return True, "Success"
        self._model.load_weights(named_tensors)
        return True, "Success"

    def begin_weight_update(self):
        pass

    def end_weight_update(self, *, run_post_load):
        assert not run_post_load


def a_runner(model):
    return SimpleNamespace(model=model, weight_updater=Own(model), check_weights="checks")


class Careless(nn.Linear):
    """A target's loader, which writes as it reads."""

    def load_weights(self, tensors):
        for name, tensor in tensors:
            self.get_parameter(name).data.copy_(tensor)


@pytest.fixture
def updates():
    with one_rank(tp_group=SimpleNamespace(world_size=1, rank_in_group=0)):
        yield lambda restores=True: WeightUpdates(torch.device("cpu"), None, restores)


def test_packed_weights_follow_a_direct_copy_in_place(updates):
    model = served_draft()
    inject = ContextInjector(model, runner(Pool()))
    inject.prepare()
    packed, norms = inject._project._weight, inject._plan.norm_weights
    ((_, draft),) = updates().select([("draft", a_runner(model))], "draft", in_session=True)
    pushed = [(name, torch.randn_like(p)) for name, p in model.named_parameters()]
    assert draft.weight_updater.update_weights_from_tensor(pushed, "direct") == (True, "Success")
    fresh = ContextInjector(model, runner(Pool()))
    fresh.prepare()
    assert inject._project._weight is packed and torch.equal(packed, fresh._project._weight)
    assert inject._plan.norm_weights is norms and torch.equal(norms, fresh._plan.norm_weights)


def test_a_failure_of_the_draft_takes_the_target_back(updates):
    target, model, served = Careless(2, 2), served_draft(), updates()
    inject = ContextInjector(model, runner(Pool()))
    before, packed = snapshot(target) | snapshot(model), inject._project._weight.clone()
    roles = served.select([("target", a_runner(target)), ("draft", a_runner(model))], "all", in_session=False)
    pushed = [
        ("weight", torch.ones(2, 2)),
        ("draft.fc.weight", torch.ones_like(model.fc.weight)),
        ("draft.x", torch.ones(1)),
    ]
    (_, first), (_, second) = roles
    assert first.check_weights == "checks"
    assert first.weight_updater.update_weights_from_tensor(pushed) == (True, "Success")
    assert (target.weight == 1).all()
    success, message = second.weight_updater.update_weights_from_tensor(pushed)
    assert not success and message.startswith("draft tensor x: is unknown")
    assert message.endswith("Target and draft are as they were before this update.")
    assert same(before, snapshot(target) | snapshot(model)) and torch.equal(packed, inject._project._weight)
    assert not served._saved


def test_a_loader_that_fails_half_way_is_undone(updates):
    target = Careless(2, 2)
    before = snapshot(target)
    ((_, selected),) = updates().select([("target", a_runner(target))], "target", in_session=True)
    pushed = [("weight", torch.ones(2, 2)), ("bias", torch.ones(3))]
    success, message = selected.weight_updater.update_weights_from_tensor(pushed)
    assert not success and "RuntimeError" in message and "push everything again" in message
    assert same(before, snapshot(target))


def test_a_session_goes_back_to_its_begin_and_then_forgets(updates):
    target, served = Careless(2, 2), updates()
    before = snapshot(target)

    def select(in_session):
        ((_, selected),) = served.select([("target", a_runner(target))], "target", in_session)
        return selected.weight_updater

    select(False).begin_weight_update()
    assert select(True).update_weights_from_tensor([("weight", torch.ones(2, 2))])[0]
    assert not select(True).update_weights_from_tensor([("weight", torch.ones(3))])[0]
    assert same(before, snapshot(target))
    assert select(True).update_weights_from_tensor([("weight", torch.ones(2, 2))])[0]
    select(True).end_weight_update(run_post_load=False)
    assert (target.weight == 1).all() and not served._saved


def test_nothing_is_kept_where_that_is_switched_off(updates):
    target, served = Careless(2, 2), updates(restores=False)
    ((_, selected),) = served.select([("target", a_runner(target))], "target", in_session=True)
    pushed = [("weight", torch.ones(2, 2)), ("bias", torch.ones(3))]
    success, message = selected.weight_updater.update_weights_from_tensor(pushed)
    assert not success and "push all of them again" in message
    assert (target.weight == 1).all() and not served._saved


def test_the_heads_map_follows_d2t(updates):
    config = OWN | {"draft_vocab_size": 20}
    model = draft_model(config)
    model.d2t.zero_()
    target = Target(torch.randn(50, HIDDEN), torch.randn(50, HIDDEN))
    with one_rank(tp_group=SimpleNamespace(world_size=1, rank_in_group=0)):
        ends = build_ends(model, target, 3, None, 4)
    hidden, ids = torch.randn(8, HIDDEN), torch.zeros(8, dtype=torch.int64)
    rows = ends.choose(hidden, ids).view(-1, 4)[:, 1:].clone()
    model.bind(ends, 4, "test")
    model.load_weights([("d2t", torch.full((20,), 30))])
    recompute_derived(model)
    assert torch.equal(ends.choose(hidden, ids).view(-1, 4)[:, 1:], rows + 30)


# --- what an update from disk compares ---


@pytest.mark.usefixtures("updates")
def test_a_mask_embedding_is_replaced_in_place_or_refused(tmp_path):
    model = served_draft()
    model.mask_embedding = torch.zeros(HIDDEN)
    files, row = DraftFiles(model, 3), torch.randn(HIDDEN)
    with pytest.raises(DFlashError, match="has no mask embedding"):
        files.load_mask_embedding(str(tmp_path))
    torch.save({"embedding": row, "mask_token_id": 3}, tmp_path / "mask_embedding.pt")
    held = model.mask_embedding
    files.load_mask_embedding(str(tmp_path))
    assert model.mask_embedding is held and torch.equal(held, row)
    model.mask_embedding = None
    with pytest.raises(DFlashError, match="has a mask embedding"):
        files.load_mask_embedding(str(tmp_path))
