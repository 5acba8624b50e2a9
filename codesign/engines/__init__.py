# SPDX-License-Identifier: Apache-2.0
"""Engines that execute a bundle, each with the same bits: the NumPy reference, C-simulation, RTL simulation.

In: a bundle's folder and images. Out: `SimulationResult`. Only `toolchain.py` starts other programs.
"""

from codesign.engines.bundle import Bundle
from codesign.engines.compare import Difference
from codesign.engines.engine import Engine
from codesign.engines.estimate import EstimateReport, estimate_bundle
from codesign.engines.results import SimulationResult, TaskProfile, load_profiles, load_result
from codesign.engines.simulate import ENGINES, simulate

__all__ = [
    "ENGINES",
    "Bundle",
    "Difference",
    "Engine",
    "EstimateReport",
    "SimulationResult",
    "TaskProfile",
    "estimate_bundle",
    "load_profiles",
    "load_result",
    "simulate",
]
