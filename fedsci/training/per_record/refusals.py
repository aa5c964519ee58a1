"""Models whose records cannot be clipped one by one, each with what to use instead."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.instancenorm import _InstanceNorm

from fedsci.errors import ConfigError


def check_model(module: nn.Module) -> None:
    """Pass if no layer mixes records, draws random numbers or hides its parameters' use.

    Raises:
        ConfigError: with the name of the first layer that does, and its replacement.
    """
    for name, layer in module.named_modules():
        reason, hint = _fault(layer)
        if reason:
            where = name or type(layer).__name__
            raise ConfigError(f"the model cannot be trained with per-record gradients: {where} {reason}", hint=hint)


def _fault(layer: nn.Module) -> tuple[str, str]:
    """What is wrong with a layer and what would be right; empty if nothing is."""
    if isinstance(layer, _BatchNorm):
        return f"is a {type(layer).__name__}, which mixes records", "replace BatchNorm by GroupNorm or LayerNorm"
    if isinstance(layer, _InstanceNorm) and layer.track_running_stats:
        return "has track_running_stats, which mixes records", "leave track_running_stats out"
    if isinstance(layer, nn.MultiheadAttention):
        return (
            "is a MultiheadAttention, which uses its weights outside their layers",
            "replace it by attention built from Linear layers, such as opacus.layers.DPMultiheadAttention",
        )
    if isinstance(layer, (nn.LSTM, nn.GRU, nn.RNN)):
        kind = type(layer).__name__
        return f"is an {kind}, whose weights are used inside one operation", f"replace it by opacus.layers.DP{kind}"
    if isinstance(layer, _DropoutNd) and layer.p > 0 and layer.training:
        return "is dropout: a record's mask would depend on the records before it", "set its p to 0"
    if isinstance(layer, (nn.Embedding, nn.EmbeddingBag)):
        if layer.max_norm is not None:
            return "has max_norm, which changes weights by the records seen", "leave max_norm out"
        if layer.scale_grad_by_freq:
            return "has scale_grad_by_freq, which mixes records", "leave scale_grad_by_freq out"
    return "", ""


def check_by_opacus(module: nn.Module) -> None:
    """Pass if Opacus, which will make the gradients, knows of no other reason against it.

    Raises:
        ConfigError: it does.
    """
    from opacus.validators import ModuleValidator  # 50 MB that a site whose layers are all known does without

    problems = ModuleValidator.validate(module, strict=False)
    if problems:
        raise ConfigError(
            f"the model cannot be trained with per-record gradients: {problems[0]}",
            hint="replace the layer by one that treats every record alone",
        )
