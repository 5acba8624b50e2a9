# SPDX-License-Identifier: Apache-2.0
"""Routing that is known before its layer's turn: what it names is read while the layers below are computed.

A pre-gated model knows it (Hwang et al., arXiv 2308.12066), or somebody predicts it: the next router on this layer's
input (Fate, arXiv 2502.12224), or a small copy of the model that runs ahead (OD-MoE, arXiv 2512.03927). A wrong
prediction changes no bit: what was read in vain is not computed.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from codesign.errors import InputError
from codesign.experts.run.routing import RoutingTrace


def drawn_prediction(trace: RoutingTrace, recall: float, seed: int) -> RoutingTrace:
    """What a predictor would have said of a trace (seeded): a share `recall` of a token's experts, by chance.

    In place of each other one it names an expert that the token does not use, all alike likely, with the same gate.
    Raises InputError when `recall` is not from 0 to 1.
    """
    if not 0.0 <= recall <= 1.0:
        raise InputError(f"recall must be from 0 to 1, not {recall:g}; give the share of experts that are foreseen")
    draws = np.random.default_rng((seed, 1))
    order = draws.random((*trace.experts.shape[:2], trace.num_experts))
    used = np.where(trace.gates > 0, trace.experts, trace.experts[:, :, :1])
    np.put_along_axis(order, used.astype(np.int64), 2.0, axis=2)
    others = np.argsort(order, axis=2)[:, :, : trace.experts.shape[2]].astype(np.uint16)
    wrong = draws.random(trace.experts.shape) >= recall
    experts = np.where(wrong, others, trace.experts)
    return replace(trace, source=f"{trace.source}, predicted with recall {recall:g}", experts=experts)
