# SPDX-License-Identifier: Apache-2.0
"""What others offer for the same work, as benchmarks measure it."""
