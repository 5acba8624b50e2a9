// SPDX-License-Identifier: Apache-2.0
// Python's view of mixture layers that are computed while their experts are read; codesign.experts.run.compute and
// codesign.experts.run.runtime prepare the arguments.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <stdexcept>
#include <tuple>

#include "codesign/stream.hpp"

namespace nb = nanobind;
using codesign::Ahead;
using codesign::Batch;
using codesign::Demand;
using codesign::Keep;
using codesign::LayerConstants;
using codesign::LayerRun;
using codesign::MatrixPlace;
using codesign::Mixture;
using codesign::MixtureShape;
using codesign::Order;
using codesign::PassEnd;
using codesign::Residency;
using codesign::Stream;
using codesign::StreamLayer;
using codesign::StreamLog;

namespace {

template <typename T, std::size_t N>
using Array = nb::ndarray<T, nb::ndim<N>, nb::c_contig, nb::device::cpu>;

using Place = std::tuple<std::int64_t, std::int64_t, std::int64_t>;
// Bits, position, trits, where both matrices lie, bytes, and of these the first matrix'.
using LevelFacts = std::tuple<int, int, bool, Place, Place, std::int64_t, std::int64_t>;
using Rescaling = std::tuple<Array<const std::int32_t, 3>, Array<const std::uint16_t, 3>, Array<const std::uint8_t, 3>>;

MatrixPlace place_of(const Place& place) {
  return {std::get<0>(place), std::get<1>(place), std::get<2>(place)};
}

// A layer with the arrays that its constants are in.
struct Layer {
  std::shared_ptr<StreamLayer> layer;
  Rescaling fc1, fc2;
};

void set_constants(LayerConstants& constants, int matrix, const Rescaling& from, std::int64_t outputs) {
  const auto& [bias, multiplier, shift] = from;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    if (multiplier.shape(axis) != bias.shape(axis) || shift.shape(axis) != bias.shape(axis)) {
      throw std::invalid_argument("constants must have one shape");
    }
  }
  if (static_cast<std::int64_t>(bias.shape(2)) != outputs)
    throw std::invalid_argument("constants must fit the layer");
  constants.bias[matrix] = bias.data();
  constants.multiplier[matrix] = multiplier.data();
  constants.shift[matrix] = shift.data();
  constants.sets = static_cast<std::int64_t>(bias.shape(0));
  constants.experts = static_cast<std::int64_t>(bias.shape(1));
  constants.outputs[matrix] = outputs;
}

Layer* make_layer(std::int64_t embed_dim, std::int64_t hidden, bool gated, int multiplier_limit, int offset,
                  const std::vector<LevelFacts>& levels, const std::vector<int>& widths, std::int64_t multiplier,
                  int shift, std::vector<std::int32_t> table, Rescaling fc1, Rescaling fc2, int base,
                  codesign::Variant variant, std::shared_ptr<codesign::Pool> pool) {
  MixtureShape shape{embed_dim, hidden, gated, multiplier_limit, offset, {}, multiplier, shift, std::move(table)};
  std::vector<std::int64_t> sizes, halves;
  for (const auto& [bits, position, trits, first, second, size, half] : levels) {
    shape.levels.push_back({bits, position, trits, place_of(first), place_of(second)});
    sizes.push_back(size);
    halves.push_back(half);
  }
  if (shape.table.size() < 2 || levels.empty() || levels.size() > 3 || widths.size() != levels.size() ||
      embed_dim < 1 || hidden < 1 || shift < 1) {
    throw std::invalid_argument("a layer must be well formed");
  }
  LayerConstants constants;
  set_constants(constants, 0, fc1, hidden * (gated ? 2 : 1));
  set_constants(constants, 1, fc2, embed_dim);
  const auto sets = static_cast<std::int64_t>(std::get<0>(fc1).shape(0));
  const auto experts = static_cast<std::int64_t>(std::get<0>(fc1).shape(1));
  if (constants.sets != sets || constants.experts != experts ||
      (sets != 1 && sets != static_cast<std::int64_t>(levels.size()))) {
    throw std::invalid_argument("constants must have one set, or one for each width");
  }
  auto layer = std::make_shared<StreamLayer>(StreamLayer{Mixture(std::move(shape), variant, std::move(pool)), constants,
                                                         widths, std::move(sizes), std::move(halves), base});
  return new Layer{std::move(layer), std::move(fc1), std::move(fc2)};
}

using LaidBlock = std::tuple<std::int64_t, std::int64_t, std::int64_t, double>;

std::shared_ptr<Residency> make_residency(const std::vector<Place>& slots, const std::vector<LaidBlock>& blocks,
                                          double half_life) {
  std::vector<codesign::Slots> kinds;
  for (const auto& [size, count, place] : slots)
    kinds.push_back({size, count, place});
  std::vector<codesign::ResidentBlock> all;
  for (const auto& [layer, size, pin, uses] : blocks)
    all.push_back({static_cast<int>(layer), size, pin, uses});
  return std::make_shared<Residency>(kinds, all, half_life);
}

// Called without the lock of the interpreter, now and then.
void look_for_signals() {
  const nb::gil_scoped_acquire acquire;
  if (PyErr_CheckSignals() != 0)
    throw nb::python_error();
}

using Stored = std::tuple<std::uint64_t, std::uint64_t, std::uint32_t>;

// A stream with the objects whose arrays its layers point to.
struct StreamOwner {
  std::vector<std::shared_ptr<Layer>> layers;
  Stream stream;
};

StreamOwner* make_stream(std::shared_ptr<codesign::Arena> arena, std::shared_ptr<codesign::Reader> reader,
                         std::shared_ptr<Residency> residency, const std::vector<Stored>& blocks,
                         std::vector<std::shared_ptr<Layer>> layers, Order order, bool eager) {
  std::vector<codesign::StoredBlock> stored;
  for (const auto& [offset, bytes, crc] : blocks)
    stored.push_back({offset, bytes, crc});
  std::vector<std::shared_ptr<StreamLayer>> plain;
  for (const auto& layer : layers)
    plain.push_back(layer->layer);
  return new StreamOwner{std::move(layers),
                         Stream(std::move(arena), std::move(reader), std::move(residency), std::move(stored),
                                std::move(plain), order, eager, look_for_signals)};
}

// A pass that is ready to be run, with the arrays that it reads and writes.
struct Pass {
  const StreamOwner* owner;
  int number;
  Array<const std::int8_t, 2> x;
  Array<const std::uint16_t, 2> gates;
  Array<const std::uint8_t, 2> widths;
  Array<const std::int16_t, 2> residual;
  Array<std::int16_t, 2> y;
  std::shared_ptr<Ahead> ahead;

  Batch batch() const {
    return {static_cast<std::int64_t>(x.shape(0)), x.data(), gates.data(), widths.data(), residual.data()};
  }
};

Pass* plan(const StreamOwner& owner, int number, Array<const std::int8_t, 2> x, Array<const std::uint16_t, 2> gates,
           Array<const std::uint8_t, 2> widths, Array<const std::int16_t, 2> residual, Array<std::int16_t, 2> y,
           std::shared_ptr<Ahead> ahead) {
  const StreamLayer& layer = *owner.layers.at(static_cast<std::size_t>(number))->layer;
  const auto columns = static_cast<std::size_t>(layer.mixture.shape().embed_dim);
  const auto experts = static_cast<std::size_t>(layer.experts()), tokens = x.shape(0);
  if (x.shape(1) != columns || residual.shape(1) != columns || y.shape(1) != columns || gates.shape(1) != experts ||
      widths.shape(1) != experts || residual.shape(0) != tokens || y.shape(0) != tokens || gates.shape(0) != tokens ||
      widths.shape(0) != tokens) {
    throw std::invalid_argument("a batch must have the layer's shape");
  }
  return new Pass{&owner,       number,          std::move(x), std::move(gates), std::move(widths), std::move(residual),
                  std::move(y), std::move(ahead)};
}

// One after the other, to the end or to the first that could not be computed.
PassEnd run(StreamOwner& owner, const std::vector<std::shared_ptr<Pass>>& passes) {
  for (const auto& pass : passes) {
    if (pass->owner != &owner)
      throw std::invalid_argument("a pass must be of the stream that planned it");
  }
  const nb::gil_scoped_release release;
  for (const auto& pass : passes) {
    const PassEnd end = owner.stream.run(pass->number, pass->batch(), *pass->ahead, pass->y.data());
    if (end.bad_width != 0 || end.failure)
      return end;
  }
  return {};
}

void choose(const Array<const std::uint16_t, 2>& gates, const std::vector<int>& widths, std::int64_t high,
            std::int64_t low, const Array<std::uint8_t, 2>& out) {
  if (out.shape(0) != gates.shape(0) || out.shape(1) != gates.shape(1) || widths.empty()) {
    throw std::invalid_argument("widths must have the gates' shape");
  }
  codesign::choose_widths(gates.data(), static_cast<std::int64_t>(gates.shape(0)),
                          static_cast<std::int64_t>(gates.shape(1)), widths, high, low, out.data());
}

// A list of structures of int64 as an array [length, members].
template <typename T>
nb::ndarray<nb::numpy, std::int64_t, nb::ndim<2>> table_of(std::vector<T> rows) {
  static_assert(sizeof(T) % sizeof(std::int64_t) == 0);
  auto* const owner = new std::vector<T>(std::move(rows));
  const nb::capsule keep(owner, [](void* p) noexcept { delete static_cast<std::vector<T>*>(p); });
  return {owner->data(), {owner->size(), sizeof(T) / sizeof(std::int64_t)}, keep};
}

void bind_schedule(nb::module_& m) {
  nb::enum_<Order>(m, "Order")
      .value("ON_DEMAND", Order::on_demand)
      .value("SEQUENTIAL", Order::sequential)
      .value("HOTTEST_BIT_FIRST", Order::hottest_bit_first);
  nb::class_<Demand>(m, "Demand")
      .def(nb::init<int, int, int, std::int64_t>(), nb::arg("expert"), nb::arg("level"), nb::arg("block"),
           nb::arg("tokens"))
      .def_ro("expert", &Demand::expert)
      .def_ro("level", &Demand::level)
      .def_ro("block", &Demand::block)
      .def_ro("tokens", &Demand::tokens);
  m.def("in_order", &codesign::in_order);
  nb::class_<Keep>(m, "Keep").def(nb::init<int, bool, bool>(), nb::arg("layer") = -1, nb::arg("named") = false,
                                  nb::arg("better") = false);
  nb::class_<Residency>(m, "Residency")
      .def(nb::new_(&make_residency), nb::arg("slots"), nb::arg("blocks"), nb::arg("half_life"))
      .def("size", &Residency::size)
      .def("pinned", &Residency::pinned)
      .def("place", &Residency::place)
      .def("resident", &Residency::resident)
      .def("loading", &Residency::loading)
      .def("begin_load", &Residency::begin_load, nb::arg("block"), nb::arg("keep") = Keep{})
      .def("end_load", &Residency::end_load)
      .def("drop", &Residency::drop)
      .def("name", &Residency::name)
      .def("forget", &Residency::forget)
      .def("named", &Residency::named);
  nb::class_<LayerRun>(m, "LayerRun")
      .def(nb::init<Residency&, const std::vector<Demand>&, Order, bool>(), nb::keep_alive<1, 2>())
      .def_prop_ro("done", &LayerRun::done)
      .def_prop_ro("all_asked_for", &LayerRun::all_asked_for)
      .def_prop_ro("hits", &LayerRun::hits)
      .def_prop_ro("hit_bytes", &LayerRun::hit_bytes)
      .def("next_load",
           [](LayerRun& run) -> std::optional<std::pair<int, std::int64_t>> {
             const auto load = run.next_load();
             if (!load)
               return std::nullopt;
             return std::pair(load->block, load->place);
           })
      .def("begun", &LayerRun::begun)
      .def("arrived", &LayerRun::arrived)
      .def("next_step", &LayerRun::next_step, nb::rv_policy::copy)
      .def("next_begun", &LayerRun::next_begun, nb::rv_policy::copy)
      .def("also_ready", &LayerRun::also_ready)
      .def("computed", &LayerRun::computed);
}

}  // namespace

void bind_mixture(nb::module_& m) {
  bind_schedule(m);
  nb::class_<codesign::Pool>(m, "MixturePool").def(nb::init<int>(), nb::arg("threads"));
  nb::class_<Layer>(m, "MixtureLayer")
      .def(nb::new_(&make_layer), nb::kw_only(), nb::arg("embed_dim"), nb::arg("hidden"), nb::arg("gated"),
           nb::arg("multiplier_limit"), nb::arg("offset"), nb::arg("levels"), nb::arg("widths"), nb::arg("multiplier"),
           nb::arg("shift"), nb::arg("table"), nb::arg("fc1"), nb::arg("fc2"), nb::arg("base"), nb::arg("variant"),
           nb::arg("pool"));
  m.def("choose_widths", &choose, nb::arg("gates"), nb::arg("widths"), nb::arg("high"), nb::arg("low"),
        nb::arg("out").noconvert());
  nb::class_<Ahead>(m, "Ahead")
      .def(nb::init<>())
      .def(nb::init<std::vector<int>, bool>(), nb::arg("blocks"), nb::arg("foreseen"));
  nb::class_<Pass>(m, "Pass");
  nb::class_<PassEnd>(m, "PassEnd").def_ro("bad_width", &PassEnd::bad_width).def_ro("failure", &PassEnd::failure);
  nb::class_<StreamOwner>(m, "Stream")
      .def(nb::new_(&make_stream), nb::kw_only(), nb::arg("arena"), nb::arg("reader"), nb::arg("residency"),
           nb::arg("blocks"), nb::arg("layers"), nb::arg("order"), nb::arg("eager"))
      .def("warm",
           [](StreamOwner& owner, const std::vector<int>& blocks) {
             const nb::gil_scoped_release release;
             return owner.stream.warm(blocks);
           })
      .def("plan", &plan, nb::arg("number"), nb::arg("x").noconvert(), nb::arg("gates").noconvert(),
           nb::arg("widths").noconvert(), nb::arg("residual").noconvert(), nb::arg("y").noconvert(), nb::arg("ahead"),
           nb::rv_policy::take_ownership)
      .def("run", &run, nb::arg("passes"))
      .def("take_log", [](StreamOwner& owner) {
        StreamLog log = owner.stream.take_log();
        const codesign::Counts& c = log.counts;
        return nb::make_tuple(
            table_of(std::move(log.events)), table_of(std::move(log.reads)), table_of(std::move(log.passes)),
            nb::make_tuple(c.blocks, c.block_bytes, c.hits, c.hit_bytes, c.pairs, c.pair_bits, c.foreseen));
      });
}
