# SPDX-License-Identifier: Apache-2.0
"""The statistics that a random model is given: those of trained ones, in real units (standard deviations, nats)."""

RESIDUAL_SCALE = 2.0**-9
"""The residual stream holds +-64. In Edge-MoE's trained M3ViT-tiny its largest channel reaches 39 after twelve blocks,
the median channel 5.6; the next numbers are set so that the same is found here."""
EMBED_SIGMA = 0.6
STREAM_SIGMA = 1.75
STREAM_DEPTH = 12
"""Typical deviation of a residual channel after the embedding, and after that many blocks."""
CHANNEL_SPREAD = 0.3
"""Sigma of the log-normal sizes of the residual's channels, and of the gains of norms."""
BRANCH_SPREAD = 0.2
"""The same, of what each branch adds to them, and of heads."""
OUTLIERS = 1 / 64
"""Share of the residual's channels that every layer writes with much larger weights,"""
OUTLIER_SIZE = 6.5
"""by this factor (the embedding by its root),"""
OUTLIER_GAIN = 0.4
"""and that norms shrink by this one."""
OFFSET = 0.3
"""Deviation of a branch's mean over the tokens from channel to channel, relative to its deviation over the tokens."""
NORM_BIAS = 0.15
"""Deviation of a norm's biases."""

OUTPUT_SPREAD = 0.4
"""Sigma of the log-normal sizes of a layer's output channels."""
ARGUMENT_SIGMA = 1.0
ARGUMENT_MEAN = -0.4
ARGUMENT_MEAN_SPREAD = 0.5
"""GELU's arguments: most hidden values are small and negative."""
SCORE_SIGMA = 1.5
HEAD_SPREAD = 0.35
"""Deviation of a query's scores over the keys, and sigma of its log-normal spread over heads."""

LOGIT_SIGMA = 1.2
LOGIT_SPREAD = 0.15
"""Deviation of a router's logits over the tokens, and sigma of its log-normal spread over experts."""
LOAD_SPREAD = 0.5
SMALLEST_LOAD = 0.5
"""Sigma of the log-normal loads of experts, and the smallest, relative to their median."""

CLASS_SIGMA = 3.0
VALUE_SIGMA = 0.5
"""Deviation of the logits of classes, and of a value or logarithm."""
