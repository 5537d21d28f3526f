"""Weight updates as a trainer sends them: pushed tensors in every format, checkpoints on disk, a broadcast."""

import base64
import json
import pickle
import shutil
import socket
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import httpx
import torch
from safetensors.torch import load_file, save_file
from torch.distributed import distributed_c10d as c10d

Named = list[tuple[str, torch.Tensor]]


class Answer(NamedTuple):
    """What the server said."""

    success: bool
    message: str


class Trainer:
    """The weight endpoints of one server."""

    def __init__(self, url: str, ranks: int = 1):
        self._ranks = ranks
        self._http = httpx.Client(base_url=url, timeout=120, trust_env=False)

    def disk(self, folder: str | Path, **fields) -> Answer:
        return self._post("update_weights_from_disk", model_path=str(folder), **fields)

    def push(self, tensors: Named, selector: str = "all", load_format: str | None = None, **fields) -> Answer:
        """One push within an open session; every rank gets the whole tensors."""
        body = bucket(tensors) if load_format == "flattened_bucket" else tensors
        fields |= {"selector": selector, "load_format": load_format}
        return self.push_raw([self.payload(body)] * self._ranks, **fields)

    def push_each(self, tensors: list[Named], **fields) -> Answer:
        """One push with other tensors for each rank."""
        return self.push_raw([self.payload(named) for named in tensors], **fields)

    def push_raw(self, payloads: list[str], **fields) -> Answer:
        return self._post("update_weights_from_tensor", serialized_named_tensors=payloads, **fields)

    @staticmethod
    def payload(body) -> str:
        return base64.b64encode(pickle.dumps(body)).decode()

    def begin(self, selector: str = "all") -> Answer:
        return self._post("begin_weight_update", selector=selector)

    def end(self) -> Answer:
        return self._post("end_weight_update")

    def session(self, pushes: Iterable[Named], selector: str = "all", load_format: str | None = None) -> None:
        """A whole update: begin, every push, end; all succeed."""
        assert self.begin(selector).success
        for tensors in pushes:
            answer = self.push(tensors, selector, load_format)
            assert answer.success, answer.message
        assert self.end().success

    def post(self, name: str, **body) -> Answer:
        return self._post(name, **body)

    def checksums(self) -> dict[str, str]:
        """A digest of every tensor, the draft's with the prefix ``draft.``."""
        reply = self._http.post("/weights_checker", json={"action": "checksum"}).json()
        assert reply["success"], reply
        ranks = [rank["checksums"] for rank in reply["ranks"]]
        return ranks[0] if len(ranks) == 1 else {f"{i}.{k}": v for i, rank in enumerate(ranks) for k, v in rank.items()}

    def plain_post(self, name: str, **body) -> bool:
        """A request that is answered by its status alone."""
        return self._http.post(f"/{name}", json=body).status_code == 200

    def _post(self, name: str, **body) -> Answer:
        reply = self._http.post(f"/{name}", json=body)
        said = reply.json()
        assert reply.status_code == (200 if said["success"] else 400), reply.text
        return Answer(said["success"], said["message"])


class Broadcast:
    """A group of this process, the trainer's rank 0, and a server."""

    def __init__(self, trainer: Trainer, name: str = "weight_update_group"):
        self._trainer, self._name = trainer, name
        self._thread = ThreadPoolExecutor(1)

    def __enter__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        joining = self._thread.submit(self._join, port)
        where = {"master_address": "127.0.0.1", "master_port": port, "rank_offset": 1, "world_size": 2}
        answer = self._trainer.post("init_weights_update_group", group_name=self._name, backend="gloo", **where)
        assert answer.success, answer.message
        self._group = joining.result(60)
        return self

    def _join(self, port: int):
        """As SGLang does it: a group beside the default one, which this process lacks."""
        store, _, _ = next(c10d.rendezvous(f"tcp://127.0.0.1:{port}", 0, 2))
        store = torch.distributed.PrefixStore(self._name, store)
        group, _ = c10d._new_process_group_helper(
            2, 0, [], torch.distributed.Backend("gloo"), store, group_name=self._name, timeout=c10d.default_pg_timeout
        )
        c10d._world.pg_group_ranks[group] = {0: 0, 1: 1}
        return group

    def send(self, folder: str, selector: str, load_format: str | None, fails: bool = False) -> Answer:
        """One session with one broadcast of a checkpoint's tensors."""
        tensors = [(name, tensor.contiguous()) for name, tensor in weights(folder)]
        assert self._trainer.begin(selector).success
        sent = [tensor for _, tensor in tensors] if load_format is None else [bucket(tensors)["flattened_tensor"]]
        sending = self._thread.submit(self._broadcast, sent)
        answer = self._trainer.post(
            "update_weights_from_distributed",
            names=[name for name, _ in tensors],
            dtypes=[str(tensor.dtype).removeprefix("torch.") for _, tensor in tensors],
            shapes=[list(tensor.shape) for _, tensor in tensors],
            group_name=self._name,
            selector=selector,
            load_format=load_format,
        )
        sending.result(60)
        assert answer.success != fails, answer.message
        assert self._trainer.end().success
        return answer

    def _broadcast(self, tensors: list[torch.Tensor]) -> None:
        for tensor in tensors:
            torch.distributed.broadcast(tensor, src=0, group=self._group)

    def __exit__(self, *_):
        self._trainer.post("destroy_weights_update_group", group_name=self._name)
        torch.distributed.destroy_process_group(self._group)
        self._thread.shutdown()


def bucket(tensors: Named) -> dict:
    """One flat tensor of bytes, and where each tensor lies in it."""
    flat, rows, start = [], [], 0
    for name, tensor in tensors:
        data = tensor.contiguous().flatten().view(torch.uint8)
        place = {"start_idx": start, "end_idx": start + data.numel(), "numel": data.numel()}
        rows.append(SimpleNamespace(name=name, shape=tensor.shape, dtype=tensor.dtype, **place))
        flat.append(data)
        start += data.numel()
    return {"flattened_tensor": torch.cat(flat), "metadata": rows}


def split(tensors: Named, parts: int) -> list[Named]:
    """The tensors in ``parts`` pushes, in their order."""
    step = -(-len(tensors) // parts)
    return [tensors[i : i + step] for i in range(0, len(tensors), step)]


def weights(folder: str | Path, prefix: str = "") -> Named:
    """A checkpoint's tensors."""
    return [(prefix + name, tensor) for name, tensor in load_file(Path(folder) / "model.safetensors").items()]


def fused(tensors: Named) -> Named:
    """A draft checkpoint's tensors under the parameter names of SGLang's layers."""
    by_name, done = dict(tensors), []
    for name, tensor in tensors:
        for whole, parts in (("qkv_proj", ("q_proj", "k_proj", "v_proj")), ("gate_up_proj", ("gate_proj", "up_proj"))):
            if parts[0] in name:
                done.append(
                    (name.replace(parts[0], whole), torch.cat([by_name[name.replace(parts[0], p)] for p in parts]))
                )
            if any(part in name for part in parts):
                break
        else:
            done.append((name, tensor))
    return done


def copy_of(folder: str | Path, to: Path, change=lambda name, tensor: tensor, **config) -> str:
    """A copy of a checkpoint with its tensors and config changed."""
    shutil.copytree(folder, to, ignore=shutil.ignore_patterns("*.safetensors", "*.csv", "*.png", "README.md"))
    tensors = {name: change(name, tensor) for name, tensor in weights(folder)}
    save_file(
        {name: tensor.contiguous() for name, tensor in tensors.items() if tensor is not None}, to / "model.safetensors"
    )
    values = json.loads((to / "config.json").read_text()) | config
    (to / "config.json").write_text(json.dumps(values))
    return str(to)
