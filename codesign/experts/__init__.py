# SPDX-License-Identifier: Apache-2.0
"""Experts that rest in a file, and a runtime that reads them while others compute (docs/edge.md, sections 3 to 6).

In: the mixture layers of a graph, or of an LLM-shaped recipe. Out: a store (`store`, `writer`), in one of the formats
of `codesign.spec.moe`.
"""
