# SPDX-License-Identifier: Apache-2.0
"""One self-contained HTML page about a bundle: accuracy, pictures, cycles, expert load, traffic, verdicts.

In: a bundle's folder with the results that `simulate` left there. Out: `report.html` in it, static, no network.
"""

from codesign.report.measure import Measurement, measure
from codesign.report.page import report, write_page
from codesign.report.training import read_training

__all__ = ["Measurement", "measure", "read_training", "report", "write_page"]
