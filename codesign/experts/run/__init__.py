# SPDX-License-Identifier: Apache-2.0
"""Mixture layers executed from a store under a memory budget, on a processor (docs/edge.md, section 6).

In: a store, a budget, and a routing trace (`session`) or a graph with images (`graph`). Out: outputs that are the
reference's bits, metrics, a timeline, and the routing as it was.
"""
