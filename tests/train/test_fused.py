# SPDX-License-Identifier: Apache-2.0
"""The fast training path gives Brevitas' values and gradients."""

from __future__ import annotations

import pytest
import torch

from codesign.train.model import Attention
from codesign.train.quantizers import ActQuant, Mode, learned8, learned16, probability8


def _pass(quant: ActQuant, x: torch.Tensor, weights: torch.Tensor) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    quant.zero_grad()
    y = quant(x)
    y.backward(weights)
    grads = [quant.parameter.grad.clone()] if quant.learned and quant.parameter.grad is not None else []
    return [y.detach(), x.grad if x.grad is not None else x, *grads]


@pytest.mark.parametrize("make", [learned8, learned16, probability8])
def test_activation_quantizer(make) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    quant: ActQuant = make()
    quant.mode = Mode.QUANTIZED
    if quant.learned:
        quant.set_threshold(1.7)  # a few values saturate
    x, weights = torch.randn(2, 4000)
    fused = _pass(quant.train(), x, weights)
    brevitas = _pass(quant.eval(), x, weights)
    assert torch.equal(fused[0], brevitas[0])
    assert len(fused) == (3 if quant.learned else 2)
    for ours, theirs in zip(fused[1:], brevitas[1:], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_attention() -> None:
    torch.manual_seed(0)
    attention = Attention(64, 2)
    for module in attention.modules():
        if hasattr(module, "mode"):
            module.mode = Mode.QUANTIZED
        if isinstance(module, ActQuant) and module.learned:
            module.set_threshold(2.0)
    x = torch.randn(2, 9, 64)
    results = []
    for training in (True, False):
        attention.train(training)
        leaf = x.clone().requires_grad_()
        y = attention(leaf)
        y.square().sum().backward()
        results.append((y.detach(), leaf.grad))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=0, atol=1e-6)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-4, atol=1e-5)
