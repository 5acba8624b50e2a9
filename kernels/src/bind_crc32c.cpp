// SPDX-License-Identifier: Apache-2.0
// Python's view of the checksum: any contiguous bytes; the interpreter runs on while they are summed.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include "codesign/crc32c.hpp"

namespace nb = nanobind;

namespace {

using Bytes = nb::ndarray<const std::uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

template <std::uint32_t (*Sum)(const void*, std::size_t, std::uint32_t)>
std::uint32_t sum(const Bytes& data, std::uint32_t crc) {
  const nb::gil_scoped_release release;
  return Sum(data.data(), data.size(), crc);
}

}  // namespace

void bind_crc32c(nb::module_& m) {
  m.def("crc32c", &sum<codesign::crc32c>, nb::arg("data"), nb::arg("crc") = 0);
  m.def("crc32c_portable", &sum<codesign::crc32c_portable>, nb::arg("data"), nb::arg("crc") = 0);
}
