# SPDX-License-Identifier: Apache-2.0
"""Kernels for GPUs in Triton: integers only, the layouts of docs/edge.md, the bits of `codesign.reference`.

In: tensors on a `Device` (a CUDA device, or the processor in Triton's interpreter). Out: tensors there. Importing this
package needs neither torch nor Triton; `open_device` says what is missing. `code` holds what runs on the device.
"""
