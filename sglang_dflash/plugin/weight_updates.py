"""Weight updates of a running server, where our worker serves: each tensor to its model, all or nothing."""

import logging

from sglang_dflash.errors import DFlashError
from sglang_dflash.host.contract import Touch

logger = logging.getLogger(__name__)

MANAGER = "sglang.srt.managers.scheduler_components.weight_updater.SchedulerWeightUpdaterManager"
SELECT = f"{MANAGER}._select_runners"
FROM_TENSOR = f"{MANAGER}.update_weights_from_tensor"
BEGIN = f"{MANAGER}.begin_weight_update"
END = f"{MANAGER}.end_weight_update"

_UNTIL = "SGLang undoes failed updates, and says in update_weights_from_disk whose checkpoint it is"
_OUTPUT = "sglang.srt.managers.io_struct:"
_MANAGER = "sglang.srt.managers.scheduler_components.weight_updater:SchedulerWeightUpdaterManager"
TOUCHES = (
    Touch(
        f"{_MANAGER}._select_runners",
        "hooked (around): the updaters of target and draft are ours, which ask SGLang's",
        _UNTIL,
        ("self", "selector"),
    ),
    Touch(
        f"{_MANAGER}.update_weights_from_tensor",
        "hooked (around): a payload that cannot be read is answered; it would end the scheduler",
        "SGLang answers",
        ("self", "recv_req"),
    ),
    Touch(
        f"{_MANAGER}.begin_weight_update",
        "hooked (around): a failure is answered; it would end the scheduler",
        "SGLang answers",
        ("self", "recv_req"),
    ),
    Touch(
        f"{_MANAGER}.end_weight_update",
        "hooked (around): a failure is answered; it would end the scheduler",
        "SGLang answers",
        ("self", "recv_req"),
    ),
    Touch(
        _MANAGER, "its session tells a push from a whole update", _UNTIL, ("draft_worker", "tp_cpu_group", "_session")
    ),
    Touch(f"{_OUTPUT}UpdateWeightsFromTensorReqOutput", "the answer", "SGLang answers", ("success", "message")),
    Touch(f"{_OUTPUT}BeginWeightUpdateReqOutput", "the answer", "SGLang answers", ("success", "message")),
    Touch(f"{_OUTPUT}EndWeightUpdateReqOutput", "the answer", "SGLang answers", ("success", "message")),
    Touch(
        "sglang.srt.model_executor.model_runner_components.weight_updater:WeightUpdater.update_weights_from_disk",
        "called for target and draft",
        _UNTIL,
        ("model_path", "load_format", "recapture_cuda_graph"),
    ),
    Touch(
        "sglang.srt.model_executor.model_runner_components.weight_updater:WeightUpdater.update_weights_from_tensor",
        "called for target and draft",
        _UNTIL,
        ("named_tensors", "load_format"),
    ),
    Touch(
        "sglang.srt.model_executor.model_runner_components.weight_updater:WeightUpdater.load_weights_from_distributed",
        "called for target and draft",
        _UNTIL,
        ("named_tensors",),
    ),
    Touch(
        "sglang.srt.model_executor.model_runner_components.weight_updater:WeightUpdater.end_weight_update",
        "called for target and draft",
        _UNTIL,
        ("run_post_load",),
    ),
)


def install() -> None:
    """Have this process's weight updates answered by ours; called where our worker is chosen, and nowhere else.

    What is hooked lives in a heavy module, which the scheduler has loaded by then.
    """
    from sglang.srt.plugins.hook_registry import HookRegistry, HookType

    HookRegistry.register(SELECT, _select_runners, HookType.AROUND)
    HookRegistry.register(FROM_TENSOR, _update_from_tensor, HookType.AROUND)
    HookRegistry.register(BEGIN, _begin, HookType.AROUND)
    HookRegistry.register(END, _end, HookType.AROUND)
    HookRegistry.apply_hooks()
    missing = [target for target in (SELECT, FROM_TENSOR, BEGIN, END) if target not in HookRegistry._patched]
    if missing:
        raise DFlashError("sglang", f"hooks did not land on {', '.join(missing)}", "reinstall SGLang")


def _select_runners(original, manager, selector: str = "all") -> list:
    runners = original(manager, selector)
    return manager.draft_worker.weight_updates.select(runners, selector, manager._session is not None)


def _update_from_tensor(original, manager, request):
    """Nothing raises here but the reading of the payload, before the first role's turn: take it in its place."""
    import torch
    from sglang.srt.managers.io_struct import UpdateWeightsFromTensorReqOutput

    from sglang_dflash.host.weight_api import agree

    try:
        return original(manager, request)
    except Exception as error:
        logger.exception("sglang-dflash: weights were pushed in a payload that cannot be read")
        # The other ranks are at the first role's answer, then at the barrier.
        _, message = agree(False, f"the payload cannot be read: {type(error).__name__}: {error}")
        torch.distributed.barrier(group=manager.tp_cpu_group)
        return UpdateWeightsFromTensorReqOutput(success=False, message=message)


def _begin(original, manager, request):
    from sglang.srt.managers.io_struct import BeginWeightUpdateReqOutput

    try:
        return original(manager, request)
    except DFlashError as error:
        return BeginWeightUpdateReqOutput(success=False, message=str(error))


def _end(original, manager, request):
    from sglang.srt.managers.io_struct import EndWeightUpdateReqOutput

    try:
        return original(manager, request)
    except DFlashError as error:
        manager._session = None
        return EndWeightUpdateReqOutput(success=False, message=str(error))
