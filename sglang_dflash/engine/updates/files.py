"""What an update from a checkpoint folder has to know of the served draft."""

from dataclasses import asdict
from typing import Any

from sglang_dflash.checkpoints.config import local_folder, parse_draft_config, read_json
from sglang_dflash.engine.draft.mask import load_mask_embedding
from sglang_dflash.engine.draft.model import DFlashDraftModel
from sglang_dflash.engine.updates import addresses
from sglang_dflash.errors import DFlashError

FIELD = "model_path"
# Neither changes what the weights mean: the block is sized at the start, and SGLang may read the method elsewhere.
_FREE = {"block_size", "quantisation"}


class DraftFiles:
    """The served draft, as far as checkpoint folders are compared with it."""

    def __init__(self, model: DFlashDraftModel, mask_token_id: int):
        self._model, self._mask_token_id = model, mask_token_id

    def owner(self, model_path: str) -> str:
        """Whose checkpoint lies in a folder or under a Hugging Face id, by its config.json.

        Raises:
            DFlashError: there is no folder, or no config.json in it.
        """
        return addresses.owner(_config(model_path))

    def check(self, model_path: str) -> None:
        """DFlashError where the config.json of a draft's checkpoint differs from the served draft's."""
        given, served = asdict(parse_draft_config(_config(model_path))), asdict(self._model.draft_config)
        differing = sorted(name for name in served if name not in _FREE and given[name] != served[name])
        if differing:
            remedy = "start a server with this draft"
            raise DFlashError(FIELD, f"{model_path} differs from the served draft in {', '.join(differing)}", remedy)

    def load_mask_embedding(self, model_path: str) -> None:
        """Copy the trained mask embedding beside a checkpoint into the one in use.

        Raises:
            DFlashError: only one of the two exists.
        """
        served: Any = self._model.mask_embedding
        row = load_mask_embedding(model_path, self._mask_token_id, self._model.fc.weight.device)
        if (row is None) != (served is None):
            which = "has no" if row is None else "has a"
            remedy = "start a server with this draft"
            raise DFlashError(FIELD, f"{model_path} {which} mask embedding, unlike the served draft", remedy)
        if served is not None and row is not None:
            served.copy_(row)


def _config(model_path: str) -> dict[str, Any]:
    folder = local_folder(model_path, field=FIELD)
    if folder is not None:
        return read_json(folder / "config.json", FIELD)
    from transformers import PretrainedConfig

    return PretrainedConfig.get_config_dict(model_path)[0]
