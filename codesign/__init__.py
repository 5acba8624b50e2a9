# SPDX-License-Identifier: Apache-2.0
"""codesign: a multi-task vision transformer with mixture of experts, from training to a verified accelerator.

Packages in the order of the data's journey: spec, reference, train, frontend, passes, schedule, emit, engines, report.
"""

import os

# The reference multiplies many small matrices: a second BLAS thread makes that up to 15 times slower, not faster.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.1.0"
