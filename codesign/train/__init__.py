# SPDX-License-Identifier: Apache-2.0
"""Data set, quantization-aware model, training and export. `digitscenes` and `metrics` need no torch."""
