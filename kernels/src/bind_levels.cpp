// SPDX-License-Identifier: Apache-2.0
// Packed weights for Python. Shapes and ranges are checked by codesign.kernels.levels before they come here.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <tuple>
#include <utility>
#include <vector>

#include "codesign/levels.hpp"

namespace nb = nanobind;
using codesign::LevelWeight;
using codesign::PanelRange;
using codesign::ResidualWeight;
using codesign::Variant;

namespace {

using Bytes = nb::ndarray<const std::uint8_t, nb::c_contig, nb::device::cpu>;
using Vector32 = nb::ndarray<const std::int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using VectorFloat = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Rows = nb::ndarray<const std::int8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <class T>
using Matrix = nb::ndarray<T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

std::int64_t count(const Rows& x) {
  return static_cast<std::int64_t>(x.shape(0));
}

// A weight and the arrays it points into.
class Levels {
 public:
  Levels(std::int64_t outputs, std::int64_t inputs, std::int32_t offset,
         std::vector<std::tuple<Bytes, int, int>> levels)
      : arrays_(std::move(levels)) {
    weight_.outputs = outputs;
    weight_.inputs = inputs;
    weight_.offset = offset;
    for (const auto& [cells, bits, position] : arrays_) {
      weight_.levels[weight_.count++] = {cells.data(), bits, position};
    }
  }

  void gemm(Variant variant, const Rows& x, const Matrix<std::int32_t>& acc, bool accumulate, std::int64_t begin,
            std::int64_t end) const {
    const nb::gil_scoped_release release;
    codesign::level_gemm(variant, x.data(), count(x), weight_, acc.data(), accumulate, {begin, end});
  }

  void linear(Variant variant, const Rows& x, const Vector32& bias, const VectorFloat& scale,
              const Matrix<std::int8_t>& y, std::int64_t begin, std::int64_t end) const {
    const nb::gil_scoped_release release;
    codesign::level_linear(variant, x.data(), count(x), weight_, {bias.data(), scale.data()}, y.data(), {begin, end});
  }

  void linear_to(Variant variant, const Rows& x, const Vector32& bias, const VectorFloat& scale, std::int8_t* y) const {
    codesign::level_linear(variant, x.data(), count(x), weight_, {bias.data(), scale.data()}, y,
                           {0, (weight_.outputs + 15) / 16});
  }

 private:
  std::vector<std::tuple<Bytes, int, int>> arrays_;
  LevelWeight weight_;
};

// The same rows through several layers of one shape, to y [layers, rows, outputs].
void linear_each(const std::vector<const Levels*>& layers, Variant variant, const Rows& x, const Vector32& bias,
                 const VectorFloat& scale,
                 const nb::ndarray<std::int8_t, nb::ndim<3>, nb::c_contig, nb::device::cpu>& y) {
  const nb::gil_scoped_release release;
  const std::size_t size = y.shape(1) * y.shape(2);
  for (std::size_t i = 0; i < layers.size(); ++i) {
    // One result may serve all layers: then the last one's stays.
    std::int8_t* to = y.data() + (y.shape(0) == 1 ? 0 : i * size);
    layers[i]->linear_to(variant, x, bias, scale, to);
  }
}

class Residual {
 public:
  using Plane = std::tuple<Bytes, Matrix<const std::int16_t>>;

  Residual(std::int64_t outputs, std::int64_t inputs, Bytes base, Matrix<const std::int16_t> multiplier,
           Matrix<const std::int32_t> zero, std::vector<Plane> planes)
      : base_(std::move(base)), multiplier_(std::move(multiplier)), zero_(std::move(zero)), planes_(std::move(planes)) {
    weight_.outputs = outputs;
    weight_.inputs = inputs;
    weight_.base = base_.data();
    weight_.base_multiplier = multiplier_.data();
    weight_.base_zero = zero_.data();
    for (const auto& [cells, plane_multiplier] : planes_) {
      weight_.plane[weight_.planes] = cells.data();
      weight_.plane_multiplier[weight_.planes++] = plane_multiplier.data();
    }
  }

  void gemm(Variant variant, const Rows& x, const Matrix<std::int64_t>& acc, bool accumulate, int planes,
            std::int64_t begin, std::int64_t end) const {
    const nb::gil_scoped_release release;
    ResidualWeight read = weight_;
    read.planes = planes;
    codesign::residual_gemm(variant, x.data(), count(x), read, acc.data(), accumulate, {begin, end});
  }

 private:
  Bytes base_;
  Matrix<const std::int16_t> multiplier_;
  Matrix<const std::int32_t> zero_;
  std::vector<Plane> planes_;
  ResidualWeight weight_;
};

// The same rows through several residual layers of one shape, to acc [rows, outputs], which keeps the last one's sums.
void residual_each(const std::vector<const Residual*>& layers, Variant variant, const Rows& x,
                   const Matrix<std::int64_t>& acc, int planes) {
  for (const Residual* layer : layers) {
    layer->gemm(variant, x, acc, false, planes, 0, (static_cast<std::int64_t>(acc.shape(1)) + 15) / 16);
  }
}

void decode(Variant variant, const Bytes& trits, const nb::ndarray<std::uint8_t, nb::c_contig, nb::device::cpu>& out) {
  const nb::gil_scoped_release release;
  const auto cells = static_cast<std::int64_t>(trits.size()) / codesign::kTritBytes;
  codesign::decode_trits(variant, trits.data(), cells, out.data());
}

}  // namespace

void bind_levels(nb::module_& m) {
  nb::class_<Levels>(m, "Levels")
      .def(nb::init<std::int64_t, std::int64_t, std::int32_t, std::vector<std::tuple<Bytes, int, int>>>())
      .def("gemm", &Levels::gemm)
      .def("linear", &Levels::linear);
  m.def("linear_each", &linear_each);
  nb::class_<Residual>(m, "Residual")
      .def(nb::init<std::int64_t, std::int64_t, Bytes, Matrix<const std::int16_t>, Matrix<const std::int32_t>,
                    std::vector<Residual::Plane>>())
      .def("gemm", &Residual::gemm);
  m.def("residual_each", &residual_each);
  m.def("decode_trits", &decode);
}
