# SPDX-License-Identifier: Apache-2.0
"""From a Design to a bundle: a self-contained folder with HLS C++, SystemVerilog, data, driver and manifest.

In: `Graph`, `Design`. Out: files. Templates only loop and substitute.
"""

from codesign.emit.params import render_hls_config, render_sv_package

__all__ = ["render_hls_config", "render_sv_package"]
