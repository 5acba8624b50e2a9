# SPDX-License-Identifier: Apache-2.0
"""Mixture layers executed from page-locked host memory under a budget of a GPU's (docs/edge.md, section 7).

In: a store and a routing trace. Out: what `codesign.experts.run` gives.
"""
