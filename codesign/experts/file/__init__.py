# SPDX-License-Identifier: Apache-2.0
"""The store of experts: one file of checksummed blocks (docs/edge.md, section 3).

In: an expert's integers, or a path. Out: the file (`writer`), or a validated view of one (`store`, `codec`).
"""
