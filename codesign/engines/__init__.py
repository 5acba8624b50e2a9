# SPDX-License-Identifier: Apache-2.0
"""Engines that execute a bundle, each with the same bits: the NumPy reference, C-simulation, RTL simulation,
native kernels on the processor, Triton kernels on a GPU.

In: a bundle's folder and images. Out: `SimulationResult`. Only `toolchain.py` starts other programs.
"""

from codesign.engines.bundle import Bundle
from codesign.engines.compare import Difference
from codesign.engines.engine import Engine
from codesign.engines.estimate import EstimateReport, InstructionEstimate, TaskEstimate, estimate_bundle
from codesign.engines.results import SimulationResult, TaskProfile, load_profiles, load_result, load_trace
from codesign.engines.simulate import ENGINES, simulate
from codesign.engines.timeline import Trace

__all__ = [
    "ENGINES",
    "Bundle",
    "Difference",
    "Engine",
    "EstimateReport",
    "InstructionEstimate",
    "SimulationResult",
    "TaskEstimate",
    "TaskProfile",
    "Trace",
    "estimate_bundle",
    "load_profiles",
    "load_result",
    "load_trace",
    "simulate",
]
