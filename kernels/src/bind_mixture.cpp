// SPDX-License-Identifier: Apache-2.0
// Python's view of the mixture layer's arithmetic; codesign.experts.compute prepares the arguments.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <stdexcept>
#include <tuple>

#include "codesign/mixture.hpp"

namespace nb = nanobind;
using codesign::Group;
using codesign::MatrixPlace;
using codesign::Mixture;
using codesign::MixtureLevel;
using codesign::MixtureShape;
using codesign::Rescaler;

namespace {

template <typename T, std::size_t N>
using Array = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

using Place = std::tuple<std::int64_t, std::int64_t, std::int64_t>;
using LevelFacts = std::tuple<int, int, bool, Place, Place, std::int64_t>;

MatrixPlace place_of(const Place& place) { return {std::get<0>(place), std::get<1>(place), std::get<2>(place)}; }

// A layer with its constants, reading blocks from an arena that stays where it is.
struct Layer {
  Mixture mixture;
  Array<const std::uint8_t, 1> arena;
  std::vector<std::int64_t> sizes;  // of a block, by level
  Array<const std::int32_t, 3> bias1, bias2;
  Array<const std::uint16_t, 3> multiplier1, multiplier2;
  Array<const std::uint8_t, 3> shift1, shift2;

  std::vector<const std::uint8_t*> blocks(const std::vector<std::int64_t>& places, int last) const {
    if (last < 1 || static_cast<std::size_t>(last) > places.size() || places.size() > sizes.size()) {
      throw std::invalid_argument("levels must be there");
    }
    std::vector<const std::uint8_t*> found;
    for (std::size_t i = 0; i < places.size(); ++i) {
      if (places[i] < 0 || places[i] + sizes[i] > static_cast<std::int64_t>(arena.size())) {
        throw std::invalid_argument("a block must lie in the arena");
      }
      found.push_back(arena.data() + places[i]);
    }
    return found;
  }
};

Rescaler at(const Array<const std::int32_t, 3>& bias, const Array<const std::uint16_t, 3>& multiplier,
            const Array<const std::uint8_t, 3>& shift, std::size_t width, std::size_t expert) {
  const std::size_t set = bias.shape(0) > 1 ? width : 0;
  if (set >= bias.shape(0) || expert >= bias.shape(1)) throw std::invalid_argument("an expert must be there");
  const std::size_t start = (set * bias.shape(1) + expert) * bias.shape(2);
  return {bias.data() + start, multiplier.data() + start, shift.data() + start};
}

Layer* make(std::int64_t embed_dim, std::int64_t hidden, bool gated, bool residual, int offset,
            const std::vector<LevelFacts>& levels, std::int64_t multiplier, int shift, std::vector<std::int32_t> table,
            Array<const std::int32_t, 3> bias1, Array<const std::uint16_t, 3> multiplier1,
            Array<const std::uint8_t, 3> shift1, Array<const std::int32_t, 3> bias2,
            Array<const std::uint16_t, 3> multiplier2, Array<const std::uint8_t, 3> shift2,
            Array<const std::uint8_t, 1> arena, codesign::Variant variant, std::shared_ptr<codesign::Pool> pool) {
  MixtureShape shape{embed_dim, hidden, gated, residual, offset, {}, multiplier, shift, std::move(table)};
  std::vector<std::int64_t> sizes;
  for (const auto& [bits, position, trits, first, second, size] : levels) {
    shape.levels.push_back({bits, position, trits, place_of(first), place_of(second)});
    sizes.push_back(size);
  }
  const std::size_t rows1 = static_cast<std::size_t>(hidden) * (gated ? 2 : 1);
  if (bias1.shape(2) != rows1 || multiplier1.shape(2) != rows1 || shift1.shape(2) != rows1 ||
      bias2.shape(2) != static_cast<std::size_t>(embed_dim) || multiplier2.size() != bias2.size() ||
      shift2.size() != bias2.size() || multiplier1.size() != bias1.size() || shift1.size() != bias1.size()) {
    throw std::invalid_argument("constants must have the layer's shape");
  }
  return new Layer{Mixture(std::move(shape), variant, std::move(pool)), arena, std::move(sizes), bias1, bias2,
                   multiplier1, multiplier2, shift1, shift2};
}

Group group_of(const Array<const std::int8_t, 2>& x, const Array<std::int32_t, 2>& sums, std::size_t inputs,
               std::size_t outputs) {
  if (x.shape(1) != inputs || sums.shape(0) != x.shape(0) || sums.shape(1) != outputs) {
    throw std::invalid_argument("rows must have the layer's shape");
  }
  Group group;
  group.x = x.data();
  group.rows = static_cast<std::int64_t>(x.shape(0));
  group.sums = sums.data();
  return group;
}

void add(Layer& layer, const Array<const std::int8_t, 2>& x, const Array<std::int32_t, 2>& sums,
         const std::vector<std::int64_t>& places, int first, int last) {
  const MixtureShape& shape = layer.mixture.shape();
  const Group group = group_of(x, sums, static_cast<std::size_t>(shape.embed_dim), layer.bias1.shape(2));
  const auto blocks = layer.blocks(places, last);
  if (first < 0 || first >= last) throw std::invalid_argument("levels must ascend");
  const nb::gil_scoped_release release;
  layer.mixture.add(group, blocks, first, last);
}

void complete(Layer& layer, const Array<const std::int8_t, 2>& x, const Array<std::int32_t, 2>& sums,
              const Array<const std::uint16_t, 1>& gates, const Array<std::int16_t, 2>& out,
              const std::vector<std::int64_t>& places, int first, int last, std::size_t expert) {
  const MixtureShape& shape = layer.mixture.shape();
  Group group = group_of(x, sums, static_cast<std::size_t>(shape.embed_dim), layer.bias1.shape(2));
  if (gates.size() != x.shape(0) || out.shape(0) != x.shape(0) || out.shape(1) != x.shape(1)) {
    throw std::invalid_argument("rows must have the layer's shape");
  }
  const auto blocks = layer.blocks(places, last);
  if (first < 0 || first >= last) throw std::invalid_argument("levels must ascend");
  const std::size_t width = static_cast<std::size_t>(last - 1);
  const Rescaler fc1 = at(layer.bias1, layer.multiplier1, layer.shift1, width, expert);
  const Rescaler fc2 = at(layer.bias2, layer.multiplier2, layer.shift2, width, expert);
  group.gates = gates.data();
  group.out = out.data();
  const nb::gil_scoped_release release;
  layer.mixture.complete(group, blocks, first, last, fc1, fc2);
}

void combine(const Array<const std::int16_t, 2>& residual, const Array<const std::int16_t, 2>& contributions,
             const Array<const std::int64_t, 1>& rows, const Array<const std::int64_t, 1>& starts,
             const Array<std::int16_t, 2>& y) {
  const std::size_t tokens = residual.shape(0), columns = residual.shape(1);
  if (y.shape(0) != tokens || y.shape(1) != columns || contributions.shape(1) != columns ||
      starts.size() != tokens + 1 || rows.size() != contributions.shape(0)) {
    throw std::invalid_argument("tokens must have the layer's shape");
  }
  const auto pairs = static_cast<std::int64_t>(rows.size());
  for (std::size_t t = 0; t <= tokens; ++t) {
    const std::int64_t before = t == 0 ? 0 : starts.data()[t - 1];
    if (starts.data()[t] < before || starts.data()[t] > pairs) throw std::invalid_argument("pairs must ascend");
  }
  for (std::int64_t i = 0; i < pairs; ++i) {
    if (rows.data()[i] < 0 || rows.data()[i] >= pairs) throw std::invalid_argument("a pair must be there");
  }
  const nb::gil_scoped_release release;
  codesign::combine(residual.data(), contributions.data(), rows.data(), starts.data(),
                    static_cast<std::int64_t>(tokens), static_cast<std::int64_t>(columns), y.data());
}

}  // namespace

void bind_mixture(nb::module_& m) {
  nb::class_<codesign::Pool>(m, "MixturePool").def(nb::init<int>(), nb::arg("threads"));
  nb::class_<Layer>(m, "MixtureLayer")
      .def(nb::new_(&make), nb::kw_only(), nb::arg("embed_dim"), nb::arg("hidden"), nb::arg("gated"),
           nb::arg("residual"), nb::arg("offset"), nb::arg("levels"), nb::arg("multiplier"), nb::arg("shift"),
           nb::arg("table"), nb::arg("bias1"), nb::arg("multiplier1"), nb::arg("shift1"), nb::arg("bias2"),
           nb::arg("multiplier2"), nb::arg("shift2"), nb::arg("arena"), nb::arg("variant"), nb::arg("pool"))
      .def("add", &add)
      .def("complete", &complete);
  m.def("combine", &combine);
}
