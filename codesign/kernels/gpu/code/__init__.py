# SPDX-License-Identifier: Apache-2.0
"""What runs on the device. Imported after `open_device`: Triton decides at import whether it interprets or compiles."""
