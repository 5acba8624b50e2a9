// SPDX-License-Identifier: Apache-2.0
// The Python module codesign.kernels._native: arguments are checked by codesign.kernels.native before they come here.
#include <nanobind/nanobind.h>

#include "codesign/cpu.hpp"

namespace nb = nanobind;
using codesign::Variant;

void bind_crc32c(nb::module_& m);
void bind_levels(nb::module_& m);
void bind_reader(nb::module_& m);
void bind_mixture(nb::module_& m);
void bind_operators(nb::module_& m);

NB_MODULE(_native, m) {
  bind_crc32c(m);
  bind_levels(m);
  bind_reader(m);
  bind_mixture(m);
  nb::enum_<Variant>(m, "Variant")
      .value("PORTABLE", Variant::portable)
      .value("NEON", Variant::neon)
      .value("AVX2", Variant::avx2)
      .value("AVX512_VNNI", Variant::avx512_vnni)
      .value("AMX_INT8", Variant::amx_int8);
  m.def("available", &codesign::available);
  m.def("best_variant", &codesign::best_variant);
  bind_operators(m);
}
