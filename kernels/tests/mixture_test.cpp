// SPDX-License-Identifier: Apache-2.0
// Mixture layers computed while their experts are read, under the sanitizers: every order, transport, variant and
// number of threads gives the same bits at every budget; bad reads, and a reader that is closed meanwhile, end a pass.
// mixture_test FOLDER: writes a file there. Prints what failed; exit status 1 then.
#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <random>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "codesign/crc32c.hpp"
#include "codesign/stream.hpp"

namespace {

using namespace codesign;

constexpr int kExperts = 6, kLayers = 2, kDim = 100, kHidden = 72;
constexpr int kBits[] = {2, 2, 4}, kPositions[] = {6, 4, 0};
constexpr std::int64_t kFirst = 9 * 16 * 16, kSecond = 7 * 16 * 16;  // bytes of both matrices' cells, a bit
constexpr std::int64_t kSlot = (kFirst + kSecond) * 4;               // for any block, of two or four chunks

int failures = 0;

void check(bool good, const std::string& what) {
  if (good)
    return;
  std::printf("FAILED: %s\n", what.c_str());
  ++failures;
}

std::mt19937 draws(1);

template <typename T>
std::vector<T> random_values(std::size_t count, std::uint32_t below, int low = 0) {
  std::vector<T> made(count);
  for (T& value : made)
    value = static_cast<T>(static_cast<int>(draws() % below) + low);
  return made;
}

// The file, the constants and the tokens that every run shares.
struct Model {
  std::string path;
  std::vector<StoredBlock> blocks;
  std::vector<std::int32_t> bias = random_values<std::int32_t>(3 * kExperts * 2 * kHidden, 2'000, -1'000);
  std::vector<std::uint16_t> multiplier = random_values<std::uint16_t>(3 * kExperts * 2 * kHidden, 32'768, 32'768);
  std::vector<std::uint8_t> shift = std::vector<std::uint8_t>(3 * kExperts * 2 * kHidden, 17);
  std::vector<std::int8_t> x = random_values<std::int8_t>(9 * kDim, 256, -128);
  std::vector<std::int16_t> residual = random_values<std::int16_t>(9 * kDim, 4'000, -2'000);
  std::vector<std::uint16_t> gates = random_values<std::uint16_t>(9 * kExperts, 3);
  std::vector<std::uint8_t> widths = random_values<std::uint8_t>(9 * kExperts, 3);

  explicit Model(const std::string& folder) : path(folder + "/experts") {
    std::vector<char> content;
    for (int i = 0; i < kLayers * 3 * kExperts; ++i) {
      const int bits = kBits[i / kExperts % 3];
      const auto cells = random_values<std::uint8_t>(static_cast<std::size_t>((kFirst + kSecond) * bits), 256);
      blocks.push_back({content.size(), cells.size(), crc32c(cells.data(), cells.size())});
      content.insert(content.end(), cells.begin(), cells.end());
      content.resize((content.size() + kPage - 1) / kPage * kPage);
    }
    std::ofstream(path, std::ios::binary).write(content.data(), static_cast<std::streamsize>(content.size()));
    for (std::uint16_t& gate : gates)
      gate = static_cast<std::uint16_t>(gate * 9'000);
    for (std::uint8_t& width : widths)
      width = static_cast<std::uint8_t>(2 << width);
  }

  std::shared_ptr<StreamLayer> layer(int number, Variant variant, std::shared_ptr<Pool> pool) const {
    MixtureShape shape{kDim, kHidden, true, 0, 128, {}, 40'000, 26, {}};
    for (int entry = 0; entry <= 256; ++entry)
      shape.table.push_back(4'000 - 15 * entry);
    std::vector<std::int64_t> sizes, halves;
    for (int level = 0; level < 3; ++level) {
      const int bits = kBits[level];
      shape.levels.push_back({bits, kPositions[level], false, {}, {kFirst * bits, 0, 0}});
      sizes.push_back((kFirst + kSecond) * bits);
      halves.push_back(kFirst * bits);
    }
    LayerConstants constants;
    for (int matrix = 0; matrix < 2; ++matrix) {
      constants.bias[matrix] = bias.data();
      constants.multiplier[matrix] = multiplier.data();
      constants.shift[matrix] = shift.data();
      constants.outputs[matrix] = matrix == 0 ? 2 * kHidden : kDim;
    }
    constants.sets = 3;
    constants.experts = kExperts;
    return std::make_shared<StreamLayer>(StreamLayer{Mixture(std::move(shape), variant, std::move(pool)),
                                                     constants,
                                                     {2, 4, 8},
                                                     sizes,
                                                     halves,
                                                     number * 3 * kExperts});
  }
};

struct Way {
  Variant variant = Variant::portable;
  int threads = 1, slots = 1;
  Order order = Order::on_demand;
  bool eager = false;
  Options options = {};
};

// The reader, too: for who wants to close it.
Stream open(const Model& model, const Way& way, std::shared_ptr<Reader>& reader) {
  // Three slots hold an expert. The first block is pinned.
  const std::vector<Slots> slots{{kSlot, way.slots, kSlot}};
  std::vector<ResidentBlock> blocks;
  for (int i = 0; i < kLayers * 3 * kExperts; ++i) {
    blocks.push_back({i / (3 * kExperts), kSlot, i == 1 ? 0 : -1});
  }
  auto arena = std::make_shared<Arena>(static_cast<std::size_t>((way.slots + 1) * kSlot));
  reader = std::make_shared<Reader>(model.path, arena, way.options);
  auto pool = std::make_shared<Pool>(way.threads);
  std::vector<std::shared_ptr<StreamLayer>> layers;
  for (int n = 0; n < kLayers; ++n)
    layers.push_back(model.layer(n, way.variant, pool));
  return Stream(arena, reader, std::make_shared<Residency>(slots, blocks, 4.0), model.blocks, layers, way.order,
                way.eager, [] {});
}

// Both layers on nine tokens, on the first one, and on all again, with the other layer's blocks likely to be used or
// foreseen; empty when a read failed.
std::vector<std::int16_t> run(const Model& model, Stream& stream) {
  std::vector<std::int16_t> all;
  if (stream.warm({1}).failure)
    return {};
  for (const std::int64_t tokens : {9, 1, 9}) {
    for (int n = 0; n < kLayers; ++n) {
      const Batch batch{tokens, model.x.data(), model.gates.data(), model.widths.data(), model.residual.data()};
      std::vector<std::int16_t> y(static_cast<std::size_t>(tokens * kDim));
      Ahead ahead{{}, tokens > 1};
      for (int e = 0; e < kExperts; ++e)
        ahead.blocks.push_back((1 - n) * 3 * kExperts + e);
      if (stream.run(n, batch, ahead, y.data()).failure)
        return {};
      all.insert(all.end(), y.begin(), y.end());
    }
  }
  check(stream.take_log().passes.size() == 6, "every pass is noted");
  return all;
}

std::vector<Way> ways() {
  std::vector<Way> made;
  for (const Variant variant : {Variant::portable, Variant::avx2, Variant::avx512_vnni, Variant::amx_int8}) {
    if (!available(variant))
      continue;
    for (const Order order : {Order::on_demand, Order::sequential, Order::hottest_bit_first}) {
      for (int i = 0; i < 8; ++i) {
        Way way{variant, i % 2 ? 3 : 1, i / 2 % 2 ? 40 : 3, order, i / 4 % 2 != 0, {}};
        way.options.backend = i % 3 ? Backend::uring : Backend::threads;
        way.options.chunk = kPage;
        made.push_back(way);
      }
    }
  }
  return made;
}

void closes_meanwhile(const Model& model, Way way, int delay_us) {
  way.options.faults.delay_us = 300;
  std::shared_ptr<Reader> reader;
  Stream stream = open(model, way, reader);
  std::thread closes([&] {
    std::this_thread::sleep_for(std::chrono::microseconds(delay_us));
    reader->close();
  });
  try {
    run(model, stream);
  } catch (const std::logic_error&) {  // what is asked of a closed reader
  }
  closes.join();
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 2)
    return 2;
  const Model model(arguments[1]);
  std::shared_ptr<Reader> reader;
  Way plain;
  plain.slots = 40;
  Stream first = open(model, plain, reader);
  const auto wanted = run(model, first);
  check(wanted.size() == 2 * (9 + 1 + 9) * kDim, "everything was computed");
  check(!std::equal(model.residual.begin(), model.residual.end(), wanted.begin()), "experts count");
  int number = 0;
  for (Way way : ways()) {
    const std::string name = "way " + std::to_string(number++);
    Stream stream = open(model, way, reader);
    check(run(model, stream) == wanted, name + " gives the same bits");
    way.options.faults.error_at = 5;
    way.options.faults.error = EIO;
    Stream bad = open(model, way, reader);
    check(run(model, bad).empty(), name + " ends with a bad disk");
  }
  for (const int delay : {0, 200, 1'000, 3'000}) {
    for (const Way& way : {ways().front(), ways().back()})
      closes_meanwhile(model, way, delay);
  }
  std::printf(failures == 0 ? "good\n" : "bad\n");
  return failures == 0 ? 0 : 1;
}
