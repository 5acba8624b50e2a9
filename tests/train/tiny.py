# SPDX-License-Identifier: Apache-2.0
"""The smallest recipe that has everything: one dense block, one mixture of experts, three phases of training."""

from __future__ import annotations

from pathlib import Path

RECIPE = """
tasks = ["semseg", "depth"]

[model]
image_height = 64
image_width = 128
patch = 16
embed_dim = 32
num_heads = 1
depth = 2
mlp_hidden = 32
num_experts = 4
expert_hidden = 32
top_k = 2
cells = 4

[quant]
enabled = true
expert_weights = "ternary"

[train]
seed = 3
threads = 1
train_images = 12
batch = 4
depth_batch = 2
steps = 10
weight_quant_step = 2
act_quant_step = 5
freeze_step = 9
calibration_batches = 1
learning_rate = 2e-3
weight_decay = 0.02
warmup_steps = 2
background_weight = 0.5
balance_weight = 0.01
depth_weight = 1.0
test_images = 2
"""


def write_recipe(folder: Path, **changes: str) -> Path:
    """The tiny recipe as a file, with `key = value` lines replaced."""
    lines = []
    for line in RECIPE.splitlines():
        key = line.partition("=")[0].strip()
        lines.append(f"{key} = {changes.pop(key)}" if key in changes else line)
    assert not changes, f"no such keys: {changes}"
    path = folder / "tiny.toml"
    path.write_text("\n".join(lines), encoding="utf-8")
    return path
