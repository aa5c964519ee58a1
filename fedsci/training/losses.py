"""What each kind of task minimises."""

import torch
from torch import Tensor
from torch.nn import functional


def record_losses(kind: str, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return one loss a record, shape ``(n,)``.

    Args:
        kind: ``binary`` (logistic loss), ``multiclass`` (cross-entropy) or ``regression`` (half the squared
            error, in scaled units).
        outputs: shape ``(n, 1)`` or ``(n, classes)``.
        targets: int64 or float32, shape ``(n,)``.
    """
    if kind == "multiclass":
        return functional.cross_entropy(outputs, targets, reduction="none")
    flat = outputs.squeeze(1)
    if kind == "binary":
        return functional.binary_cross_entropy_with_logits(flat, targets.to(flat.dtype), reduction="none")
    return 0.5 * torch.square(flat - targets.to(flat.dtype))
