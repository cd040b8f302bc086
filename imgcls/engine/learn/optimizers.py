"""The optimizers, over all parameters of a network; and restoring one that another device or memory format saved."""

from __future__ import annotations

from typing import Any

import torch
import torch._dynamo  # the first optimizer would import it, for 4 s of the run's time
from torch import nn

from imgcls.config import TrainConfig


def build_optimizer(config: TrainConfig, network: nn.Module, lr: float) -> torch.optim.Optimizer:
    """Build the optimizer over all parameters; frozen ones have no gradient and stay as they are."""
    parameters = list(network.parameters())
    shared: dict[str, Any] = {"lr": lr, "weight_decay": config.weight_decay}
    if config.optimizer == "sgd":
        # Never fused: after a step that the fp16 scaler skips, torch 2.15 reads momentum that was never written.
        return torch.optim.SGD(parameters, momentum=config.momentum, nesterov=config.nesterov, **shared)
    family = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    # On a GPU one kernel, and fp16 needs no look at the gradients; on a CPU no faster than torch's own choice.
    return family(parameters, fused=parameters[0].is_cuda or None, **shared)


def restore_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Load a state dict, which may come from another device or memory format, into a new optimizer.

    torch would take over `fused` and the strides of the file, with which fused kernels fail or err.
    """
    for theirs, ours in zip(saved["param_groups"], optimizer.param_groups, strict=True):
        if "fused" in ours:
            theirs["fused"] = ours["fused"]
    optimizer.load_state_dict(saved)
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if value is not None and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter).copy_(value)
