# SPDX-License-Identifier: Apache-2.0
"""Native kernels of the operators: C++ for processors (`_native`, sources in kernels/), Triton for GPUs.

In: integer arrays and the parameters of `codesign.spec`. Out: the same bits as `codesign.reference`.
"""
