# SPDX-License-Identifier: Apache-2.0
"""From a model's experts to a store, in one of the formats of `codesign.spec.moe` (docs/edge.md, section 4).

In: the mixtures of a graph, or an LLM-shaped recipe (`sources`, `mixtures`), and calibration images. Out: a store whose
rescalings are fitted to the coarser weights (`pack`, `fit`).
"""
