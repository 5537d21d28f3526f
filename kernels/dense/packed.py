"""float32 weights in oneDNN's own layout, beside the model's: reordered once instead of in every product.

Products with few rows are then as fast as memory is read. The model's own weights stay: an embedding may share them,
and updates write there.
"""

import torch
import torch.nn.functional as F

# Below this many elements a product takes no longer than oneDNN takes to begin (docs/cpu-platform.md).
MIN_ELEMENTS = 1 << 18
# Rows for which oneDNN chooses the layout. From 4 on it is the same one, for 1 the weight's own.
_LAYOUT_ROWS = 16

_reorder = torch.ops.mkldnn._reorder_linear_weight.default
_pointwise = torch.ops.mkldnn._linear_pointwise.default
_pointwise_binary = torch.ops.mkldnn._linear_pointwise.binary


class PackedMatrix:
    """``layer.weight``, or its first ``rows``: a ``dense.Matrix`` with a packed copy.

    ``padded_rows``: to how many rows one or two are repeated, where the kernels for those are slower than for more; 1
    where they are not.
    """

    def __init__(self, layer, rows: int | None = None):
        self._layer = layer
        self.rows = layer.weight.shape[0] if rows is None else rows
        self.padded_rows = 1
        self._blocks: torch.Tensor | None = None

    @property
    def weight(self) -> torch.Tensor:
        """The model's own, [rows, in]."""
        return self._layer.weight.data[: self.rows]

    @property
    def bytes(self) -> int:
        """What the copy takes."""
        return self.weight.numel() * self.weight.element_size()

    def pack(self) -> torch.Tensor:
        """The copy, made of the weights as they are now."""
        self._blocks = _reorder(self.weight, _LAYOUT_ROWS)
        return self._blocks

    def drop(self) -> None:
        """Forget the copy: the weights have changed. The next product makes one."""
        self._blocks = None

    def project(self, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """``x @ weight.T + bias``. x: [..., in]; bias: [rows]; all float32."""
        blocks = self._blocks
        if blocks is None:
            blocks = self.pack()
        n = x.shape[0]
        if n < 3 and x.dim() == 2:
            if n == 0:
                return F.linear(x, self.weight, bias)
            if self.padded_rows > n:
                return _pointwise(torch.cat((x,) * (self.padded_rows // n)), blocks, bias, "none", [], "")[:n]
        return _pointwise(x, blocks, bias, "none", [], "")

    def add(self, residual: torch.Tensor, x: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
        """``residual + x @ weight.T + bias``. residual: [n, rows]; x: [n, in]; bias: [rows]; all float32."""
        blocks = self._blocks
        if blocks is None or x.shape[0] < 3:
            return residual + self.project(x, bias)
        return _pointwise_binary(x, residual, blocks, bias, "add")
