// SPDX-License-Identifier: Apache-2.0
// Dense layers and plans in Python. codesign.kernels.native and codesign.engines.cpu check what comes here.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "codesign/peak.hpp"
#include "codesign/plan.hpp"

namespace nb = nanobind;

namespace codesign {
namespace {

template <typename T, int kRank>
using Array = nb::ndarray<const T, nb::ndim<kRank>, nb::c_contig, nb::device::cpu>;
using Matrix = nb::ndarray<nb::ndim<2>, nb::c_contig, nb::device::cpu>;

std::span<const std::uint16_t> span_of(const Array<std::uint16_t, 1>& a) {
  return {a.data(), a.size()};
}

std::shared_ptr<Dense> make_dense(const Array<std::int8_t, 2>& weight, const Array<std::int32_t, 1>& bias,
                                  const Array<std::uint16_t, 1>& multiplier, const Array<std::uint8_t, 1>& shift,
                                  Variant variant, bool whole_bytes) {
  const std::size_t outputs = weight.shape(0), factors = multiplier.size();
  if (bias.size() != outputs || shift.size() != factors || (factors != 1 && factors != outputs) || outputs == 0 ||
      weight.shape(1) == 0 || weight.shape(1) > kMaxInputs) {
    throw nb::value_error("shapes of weight, bias, multiplier and shift do not fit");
  }
  return std::make_shared<Dense>(weight.data(), static_cast<int>(outputs), static_cast<int>(weight.shape(1)),
                                 bias.data(), multiplier.data(), shift.data(), static_cast<int>(factors),
                                 kernels(variant).signed_cells, whole_bytes);
}

void check(const Plan& plan, int tensor, const Matrix& rows) {
  const Tensor& t = plan.at(tensor);
  if (rows.shape(0) != static_cast<std::size_t>(t.rows) || rows.shape(1) != static_cast<std::size_t>(t.columns) ||
      rows.itemsize() != static_cast<std::size_t>(t.element_bytes())) {
    throw nb::value_error("the array does not fit the tensor");
  }
}

// x [rows, inputs] times the layer's weights, plus its bias: the sums themselves.
void sums(const Dense& layer, const Array<std::int8_t, 2>& x,
          const nb::ndarray<std::int32_t, nb::ndim<2>, nb::c_contig>& y, Variant variant) {
  const int rows = static_cast<int>(x.shape(0));
  if (x.shape(1) != static_cast<std::size_t>(layer.inputs()) || y.shape(0) != x.shape(0) ||
      y.shape(1) != static_cast<std::size_t>(layer.outputs())) {
    throw nb::value_error("shapes of x, y and the layer do not fit");
  }
  const std::size_t stride = round_up(layer.inputs(), kBlockInputs), wide = round_up(layer.outputs(), kPanelOutputs);
  Buffer from(round_up(rows, kRowMultiple) * stride), to(sizeof(std::int32_t) * rows * wide);
  const Scratch scratch(layer.inputs(), rows);
  for (int r = 0; r < rows; ++r) {
    std::memcpy(from.as<std::int8_t>() + r * stride, x.data() + r * x.shape(1), x.shape(1));
  }
  Linear l = layer.linear();
  l.x = from.as<std::int8_t>();
  l.x_stride = static_cast<std::ptrdiff_t>(stride);
  l.y = to.as<std::int32_t>();
  l.y_stride = static_cast<std::ptrdiff_t>(wide);
  const Kernels& k = kernels(variant);
  k.enter();
  k.linear(l, {0, rows}, {0, l.weights.panels()}, scratch);
  k.leave();
  for (int r = 0; r < rows; ++r) {
    std::memcpy(y.data() + r * y.shape(1), to.as<std::int32_t>() + r * wide, sizeof(std::int32_t) * y.shape(1));
  }
}

using Pair = std::pair<int, int>;
Requantization requantization(const Pair& pair) {
  return {pair.first, pair.second};
}

using Layers = std::vector<std::shared_ptr<Dense>>;
std::vector<std::shared_ptr<const Dense>> constant(const Layers& layers) {
  return {layers.begin(), layers.end()};
}

template <typename T>
std::vector<T> vector_of(const Array<T, 1>& a) {
  return {a.data(), a.data() + a.size()};
}

void bind_plan(nb::module_& m) {
  nb::class_<Plan>(m, "Plan")
      .def("__init__", [](Plan* self, Variant variant, int threads,
                          std::shared_ptr<Tables> tables) { new (self) Plan(variant, threads, std::move(tables)); })
      .def("tensor", &Plan::tensor)
      .def("linear", [](Plan& p, std::shared_ptr<Dense> layer, int x, int y) { p.linear(std::move(layer), x, y); })
      .def("linear_gelu", [](Plan& p, std::shared_ptr<Dense> layer, Pair gelu, int x,
                             int y) { p.linear_gelu(std::move(layer), requantization(gelu), x, y); })
      .def("linear_add", [](Plan& p, std::shared_ptr<Dense> layer, int x, int residual, int y,
                            int row_offset) { p.linear_add(std::move(layer), x, residual, y, row_offset); })
      .def("gelu", [](Plan& p, Pair gelu, int u, int y) { p.gelu(requantization(gelu), u, y); })
      .def("add", &Plan::add)
      .def("norm", [](Plan& p, const Array<std::int16_t, 1>& gain, const Array<std::int32_t, 1>& bias, int shift, int x,
                      int y) { p.norm(vector_of(gain), vector_of(bias), shift, x, y); })
      .def("attention",
           [](Plan& p, int heads, int head_dim, Pair score, Pair out, int q, int k, int v, int y) {
             p.attention(heads, head_dim, requantization(score), requantization(out), q, k, v, y);
           })
      .def("route", [](Plan& p, std::shared_ptr<Dense> layer, int top_k, int x,
                       int gates) { p.route(std::move(layer), top_k, x, gates); })
      .def("experts",
           [](Plan& p, const Layers& fc1, Pair gelu, const Layers& fc2, int most_active, int x, int gates, int residual,
              int y) {
             p.experts(constant(fc1), requantization(gelu), constant(fc2), most_active, x, gates, residual, y);
           })
      .def("finish", &Plan::finish)
      .def("write",
           [](Plan& p, int tensor, const Matrix& rows) {
             check(p, tensor, rows);
             p.write(tensor, rows.data());
           })
      .def("read",
           [](const Plan& p, int tensor, const Matrix& rows) {
             check(p, tensor, rows);
             p.read(tensor, rows.data());
           })
      .def("run", &Plan::run, nb::call_guard<nb::gil_scoped_release>());
}

}  // namespace

}  // namespace codesign

void bind_operators(nb::module_& m) {
  using namespace codesign;
  nb::enum_<Element>(m, "Element")
      .value("INT8", Element::int8)
      .value("INT16", Element::int16)
      .value("UINT16", Element::uint16);
  nb::class_<Tables>(m, "Tables")
      .def("__init__", [](Tables* self, const Array<std::uint16_t, 1>& exp2, const Array<std::uint16_t, 1>& reciprocal,
                          const Array<std::uint16_t, 1>& rsqrt, const Array<std::uint16_t, 1>& gelu_delta) {
        new (self) Tables(span_of(exp2), span_of(reciprocal), span_of(rsqrt), span_of(gelu_delta));
      });
  nb::class_<Dense>(m, "Dense")
      .def_prop_ro("reach", &Dense::reach)
      .def_prop_ro("bits", &Dense::bits)
      .def_prop_ro("bytes", &Dense::bytes)
      .def("sums", &sums);
  m.def("dense", &make_dense);
  bind_plan(m);
  m.def("peak_macs_per_second", &peak_macs_per_second, nb::call_guard<nb::gil_scoped_release>());
}
