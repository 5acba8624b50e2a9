# SPDX-License-Identifier: Apache-2.0
"""Muon for the matrices, AdamW for the rest.

Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) replaces a matrix' momentum by the nearest
semi-orthogonal matrix, found with a Newton-Schulz iteration. On this model it needs far fewer steps than AdamW alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from codesign.train.model import MultiTaskViT

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_MUON_RATE = 7.0  # of the learning rate
_RANGE_RATE = 0.5  # of the learning rate, for the logarithms of activation ranges


def orthogonalize(matrices: Tensor, steps: int = 5) -> Tensor:
    """Nearly semi-orthogonal matrices [..., rows, cols] with the singular directions of the given ones."""
    a, b, c = _COEFFICIENTS
    tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = x.mT if tall else x
    return result


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalized; leading dimensions of a parameter are a batch of matrices."""

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, momentum: float = 0.95) -> None:
        super().__init__(list(groups), {"lr": lr, "momentum": momentum, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    alike.setdefault(parameter.shape, []).append(parameter)
            for shape, parameters in alike.items():
                self._step_alike(group, shape, parameters)

    def _step_alike(self, group: dict[str, Any], shape: torch.Size, parameters: list[nn.Parameter]) -> None:
        """Parameters of one shape go through the iteration as one batch."""
        directions = []
        for parameter in parameters:
            assert parameter.grad is not None
            state = self.state[parameter]
            if not state:
                state["momentum"] = torch.zeros_like(parameter)
            state["momentum"].lerp_(parameter.grad, 1.0 - group["momentum"])
            directions.append(parameter.grad.lerp(state["momentum"], group["momentum"]))
        updates = orthogonalize(torch.stack(directions))
        size = max(1.0, shape[-2] / shape[-1]) ** 0.5
        for parameter, update in zip(parameters, updates, strict=True):
            parameter.mul_(1.0 - group["lr"] * group["weight_decay"])
            parameter.add_(update, alpha=-group["lr"] * size)


class Optimizer:
    """Muon on the weights of the blocks, AdamW on embedding, routers, heads, biases, norms and activation ranges."""

    def __init__(self, model: MultiTaskViT, weight_decay: float) -> None:
        ranges = {id(quant.parameter) for quant in model.act_quants()}
        matrices, decayed, plain, scales = [], [], [], []
        for name, parameter in model.named_parameters():
            if id(parameter) in ranges:
                scales.append(parameter)
            elif not name.endswith("weight") or parameter.ndim < 2:
                plain.append(parameter)
            elif name.startswith("blocks.") and ".routers." not in name:
                matrices.append(parameter)
            else:
                decayed.append(parameter)
        self._names = {id(parameter): name for name, parameter in model.named_parameters()}
        self._muon = Muon([{"params": matrices, "weight_decay": weight_decay, "rate": _MUON_RATE}], lr=1.0)
        self._adamw = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": weight_decay, "rate": 1.0},
                {"params": plain, "weight_decay": 0.0, "rate": 1.0},
                {"params": scales, "weight_decay": 0.0, "rate": _RANGE_RATE},
            ],
            betas=(0.9, 0.98),
        )

    def step(self, learning_rate: float) -> None:
        """Update the parameters from their gradients, then drop the gradients."""
        for optimizer in (self._muon, self._adamw):
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * group["rate"]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Tensor]:
        """Every moment as `<parameter>/<moment>`."""
        return {
            f"{self._names[id(parameter)]}/{moment}": tensor
            for optimizer in (self._muon, self._adamw)
            for parameter, moments in optimizer.state.items()
            for moment, tensor in moments.items()
        }

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave."""
        moments: dict[str, dict[str, Tensor]] = {}
        for key, tensor in state.items():
            name, moment = key.rsplit("/", 1)
            moments.setdefault(name, {})[moment] = tensor
        for optimizer in (self._muon, self._adamw):
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    if self._names[id(parameter)] in moments:
                        optimizer.state[parameter] = moments[self._names[id(parameter)]]
