"""What SGLang's weight updater calls in the place of a model runner's own one, for target and draft.

Each call runs SGLang's own update of that runner inside three rules: a tensor goes to whom it is addressed
(``addresses``), an update that fails on any rank leaves target and draft as they were, and what is computed from
weights is computed again (``derived``). Nothing raises: the scheduler calls outside of any ``try``.
"""

import contextlib
import logging
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from sglang_dflash.engine.updates.addresses import DRAFT, TARGET, own_name
from sglang_dflash.engine.updates.derived import recompute_derived
from sglang_dflash.engine.updates.payloads import addressed, names_of
from sglang_dflash.engine.updates.saved import SavedWeights
from sglang_dflash.errors import DFlashError
from sglang_dflash.host.weight_api import agree, refresh_layers

logger = logging.getLogger(__name__)

Answer = tuple[bool, str]  # success, and what to tell the client


class Selected(NamedTuple):
    """A model runner as SGLang's weight updater sees it."""

    weight_updater: "RoleUpdater"
    check_weights: Callable


class _Request(NamedTuple):
    selector: str  # "target", "draft" or "all"
    in_session: bool  # between begin_weight_update and end_weight_update
    last_role: str  # roles take turns


class WeightUpdates:
    """Updates of a served pair. ``select`` is asked at the start of every request that touches weights."""

    def __init__(self, device: torch.device, draft_files: Any, restores: bool):
        """draft_files: what an update from disk needs of the draft; restores: whether failed updates are undone."""
        self.draft_files = draft_files
        self._device, self._restores = device, restores
        self._saved: dict[Any, SavedWeights] = {}  # model -> its weights when the update, or the session, began

    def select(self, runners: list[tuple[str, Any]], selector: str, in_session: bool) -> list[tuple[str, Selected]]:
        """SGLang's selection of (role, model runner), each with an updater of ours.

        in_session: whether begin_weight_update was called; what is saved then stays until end_weight_update.
        """
        if not in_session:
            self._saved.clear()
        request = _Request(selector, in_session, last_role=runners[-1][0] if runners else "")
        return [
            (role, Selected(RoleUpdater(self, role, runner, request), runner.check_weights)) for role, runner in runners
        ]

    def begin(self, model) -> None:
        """Before the first change of ``model``: keep its weights, and wait for passes in flight."""
        self.fence()
        if self._restores and model not in self._saved:
            self._saved[model] = SavedWeights(model)

    def finish(self, model) -> None:
        """After a change of ``model``, whoever made it."""
        refresh_layers(model)
        recompute_derived(model)
        self.fence()

    def undo(self, message: str, in_session: bool, model) -> str:
        """Put back what this update, or its session, has changed; ``message`` with what became of the weights.

        model: whose change has failed.
        """
        if not self._restores:
            self.finish(model)
            return f"{message} Some weights may be updated: push all of them again (SGLANG_DFLASH_UPDATE_RESTORE=off)."
        for model, saved in self._saved.items():
            saved.restore()
            self.finish(model)
        since = "begin_weight_update was called: push everything again" if in_session else "this update"
        return f"{message} Target and draft are as they were before {since}."

    def forget(self) -> None:
        """Give the memory of what was saved back."""
        self._saved.clear()

    def fence(self) -> None:
        """Order the copies of an update against the passes around it.

        The copies run on the scheduler's stream. A pass waits for what that stream holds when it is launched, but
        the copies wait for a pass in flight only until its shared buffers are read, not until its weights are.
        """
        torch.get_device_module(self._device).synchronize()


class RoleUpdater:
    """Takes the place of SGLang's WeightUpdater of one model runner, for one request."""

    def __init__(self, updates: WeightUpdates, role: str, runner, request: _Request):
        self._updates, self._role, self._runner, self._request = updates, role, runner, request
        self._own = runner.weight_updater
        self._model = runner.model

    # --- the names that SGLang calls ---

    def update_weights_from_disk(self, model_path, load_format, recapture_cuda_graph=False) -> Answer:
        """Load the checkpoint in ``model_path`` where its config.json says that it is this role's."""

        def load() -> Answer:
            files = self._updates.draft_files
            if files.owner(model_path) != self._role:
                return True, "Succeeded to update model weights."
            config = self._runner.model_config
            path_before = config.model_path
            try:
                with self._reading(model_path):
                    answer = self._change(
                        self._own.update_weights_from_disk,
                        model_path,
                        load_format,
                        # The draft's graph was captured at its own width, which SGLang would not set again; it goes on
                        # reading the same memory.
                        recapture_cuda_graph=recapture_cuda_graph and self._role == TARGET,
                    )
            except Exception:
                config.model_path = path_before
                raise
            if not answer[0]:
                config.model_path = path_before
            return answer

        return self._answer(load)

    def update_weights_from_tensor(self, named_tensors, load_format=None) -> Answer:
        """Copy the tensors that are addressed to this role."""

        def load() -> Answer:
            own = addressed(named_tensors, self._own_name)
            if own is None:
                return True, "Success"
            if load_format == "direct":
                self._check_parameters(names_of(own))
            return self._change(self._own.update_weights_from_tensor, named_tensors=own, load_format=load_format)

        return self._answer(load)

    def load_weights_from_distributed(self, named_tensors) -> Answer:
        """Copy the received tensors that are addressed to this role."""

        def load() -> Answer:
            own = addressed(named_tensors, self._own_name)
            if own is None:
                return True, "Succeeded to update parameter online."
            return self._change(self._own.load_weights_from_distributed, own)

        return self._answer(load)

    def update_weights_from_ipc(self, request) -> Answer:
        """The target's alone: a second reader would wait for a sender that has ended."""
        if self._role == DRAFT:
            return True, "IPC weight update completed successfully"
        return self._answer(lambda: self._change(self._own.update_weights_from_ipc, request))

    def begin_weight_update(self) -> None:
        """Unpack what is packed in place, as SGLang does; failed pushes go back to that state.

        Raises:
            DFlashError: that failed; everything is as it was.
        """
        self._raise(self._answer(lambda: self._change(self._own.begin_weight_update)))

    def end_weight_update(self, *, run_post_load: bool) -> None:
        """Pack again, and recompute what follows from weights that a peer has written without a call.

        Raises:
            DFlashError: that failed.
        """
        self._raise(self._answer(lambda: self._change(self._own.end_weight_update, run_post_load=run_post_load)))
        if self._role == self._request.last_role:
            self._updates.forget()

    # --- the three rules ---

    def _change(self, change: Callable, *args, **keywords) -> Answer:
        self._updates.begin(self._model)
        success, message = change(*args, **keywords) or (True, "")
        if success:
            self._updates.finish(self._model)
        return success, message

    def _answer(self, load: Callable[[], Answer]) -> Answer:
        try:
            success, message = load()
        except DFlashError as error:
            success, message = False, f"{error}."
        except Exception as error:
            logger.exception("sglang-dflash: an update of the %s's weights failed", self._role)
            success, message = False, f"{type(error).__name__}: {error}."
        success, message = agree(success, message)
        if not success:
            message = self._updates.undo(message, self._request.in_session, self._model)
        if not self._request.in_session and (not success or self._role == self._request.last_role):
            self._updates.forget()
        return success, message

    def _own_name(self, name: str) -> str | None:
        return own_name(name, self._role, self._request.selector)

    @contextlib.contextmanager
    def _reading(self, model_path):
        """A checkpoint folder of the draft has to be complete, and its config the served one's."""
        if self._role == TARGET:
            yield
            return
        self._updates.draft_files.check(model_path)
        self._updates.begin(self._model)
        self._updates.draft_files.load_mask_embedding(model_path)
        with self._model.loading_whole():
            yield

    def _check_parameters(self, names: list[str]) -> None:
        known = dict(self._model.named_parameters())
        for name in names:
            if name not in known:
                remedy = "direct takes SGLang's own parameter names; drop load_format for a checkpoint's"
                raise DFlashError(f"{self._role} parameter {name}", "does not exist", remedy)

    def _raise(self, answer: Answer) -> None:
        success, message = answer
        if not success:
            raise DFlashError("weight update", message, "see the scheduler's log")
