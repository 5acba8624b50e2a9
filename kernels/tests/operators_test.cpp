// SPDX-License-Identifier: Apache-2.0
// Runs every operator of every variant that this processor has, on 1 to 4 threads, and compares all tensors with plain
// integers or with the portable variant. Built with sanitizers, and for other processors, by
// tests/kernels/test_native.py; the operators' exact values are tested from Python.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "codesign/plan.hpp"

namespace codesign {
namespace {

std::mt19937 generator(1);

int uniform(int low, int high) {
  return std::uniform_int_distribution<int>(low, high)(generator);
}

template <typename T>
std::vector<T> random_values(std::size_t count, int low, int high) {
  std::vector<T> values(count);
  for (T& value : values) {
    value = static_cast<T>(uniform(low, high));
  }
  return values;
}

void require(bool good, const char* what, int variant, int detail) {
  if (!good) {
    std::printf("%s differs: variant %d, %d\n", what, variant, detail);
    std::exit(1);
  }
}

std::shared_ptr<const Tables> make_tables() {
  std::vector<std::uint16_t> exp2(256), reciprocal(65), rsqrt(97), gelu(65);
  const auto rounded = [](double x) { return static_cast<std::uint16_t>(std::floor(x + 0.5)); };
  for (int i = 0; i < 256; ++i)
    exp2[i] = rounded(std::exp2(15 - i / 256.0));
  for (int i = 0; i < 65; ++i)
    reciprocal[i] = rounded(std::exp2(30) / (32768 + 512 * i));
  for (int i = 0; i < 97; ++i)
    rsqrt[i] = rounded(std::exp2(22) / std::sqrt(16384 + 512 * i));
  for (int i = 0; i < 64; ++i)
    gelu[i] = rounded(i / 16.0 * 0.5 * std::erfc(i / 16.0 / std::sqrt(2.0)) * 16384);
  return std::make_shared<Tables>(exp2, reciprocal, rsqrt, gelu);
}

std::vector<Variant> variants() {
  std::vector<Variant> found;
  for (Variant v : {Variant::portable, Variant::neon, Variant::avx2, Variant::avx512_vnni, Variant::amx_int8}) {
    if (available(v))
      found.push_back(v);
  }
  return found;
}

struct Layer {
  int outputs, inputs;
  std::vector<std::int8_t> weight;
  std::vector<std::int32_t> bias;
  std::vector<std::uint16_t> multiplier;
  std::vector<std::uint8_t> shift;

  Layer(int n, int k, int limit, int shift_by)
      : outputs(n),
        inputs(k),
        weight(random_values<std::int8_t>(static_cast<std::size_t>(n) * k, -limit, limit)),
        bias(random_values<std::int32_t>(n, -1000, 1000)),
        multiplier(random_values<std::uint16_t>(n, 32768, 65535)),
        shift(n, static_cast<std::uint8_t>(shift_by)) {}

  std::shared_ptr<Dense> pack(Variant variant) const {
    return std::make_shared<Dense>(weight.data(), outputs, inputs, bias.data(), multiplier.data(), shift.data(),
                                   outputs, kernels(variant).signed_cells, false);
  }
};

void check_sums(Variant variant, int rows, int outputs, int inputs, int limit, bool extreme) {
  Layer layer(outputs, inputs, limit, 30);
  auto x = random_values<std::int8_t>(static_cast<std::size_t>(rows) * inputs, -128, 127);
  if (extreme) {
    std::fill(x.begin(), x.end(), std::int8_t{-128});
    std::fill(layer.weight.begin(), layer.weight.end(), std::int8_t{-128});
  }
  const auto dense = layer.pack(variant);
  const std::size_t stride = round_up(inputs, 64), wide = round_up(outputs, 16);
  Buffer from(round_up(rows, 16) * stride), to(sizeof(std::int32_t) * rows * wide);
  for (int r = 0; r < rows; ++r)
    std::copy_n(&x[r * inputs], inputs, from.as<std::int8_t>() + r * stride);
  Linear l = dense->linear();
  l.x = from.as<std::int8_t>();
  l.x_stride = static_cast<std::ptrdiff_t>(stride);
  l.y = to.as<std::int32_t>();
  l.y_stride = static_cast<std::ptrdiff_t>(wide);
  const Scratch scratch(inputs, rows);
  const Kernels& k = kernels(variant);
  k.enter();
  k.linear(l, {0, rows}, {0, l.weights.panels()}, scratch);
  k.leave();
  for (int r = 0; r < rows; ++r) {
    for (int n = 0; n < outputs; ++n) {
      std::int64_t sum = layer.bias[n];
      for (int i = 0; i < inputs; ++i)
        sum += x[r * inputs + i] * layer.weight[n * inputs + i];
      require(to.as<std::int32_t>()[r * wide + n] == sum, "a sum", static_cast<int>(variant), inputs);
    }
  }
}

struct Sizes {
  int tokens, heads, head_dim, hidden, experts;
};

// A block of a transformer with everything in it, on fixed values; all its tensors.
struct Network {
  Sizes s;
  int dim = s.heads * s.head_dim;
  std::vector<Layer> qkv{3, Layer(dim, dim, 127, 31)};
  Layer proj{dim, dim, 127, 26}, up{s.hidden, dim, 127, 26}, down{dim, s.hidden, 127, 26};
  Layer router{s.experts, dim, 127, 27};
  std::vector<Layer> fc1{static_cast<std::size_t>(s.experts), Layer(s.hidden, dim, 1, 19)};
  std::vector<Layer> fc2{static_cast<std::size_t>(s.experts), Layer(dim, s.hidden, 7, 22)};
  std::vector<std::int16_t> gain = random_values<std::int16_t>(dim, -900, 900);
  std::vector<std::int32_t> bias = random_values<std::int32_t>(dim, -200000, 200000);
  std::vector<std::int16_t> x = random_values<std::int16_t>(static_cast<std::size_t>(s.tokens) * dim, -3000, 3000);

  std::vector<std::vector<std::byte>> run(Variant variant, int threads, std::shared_ptr<const Tables> tables) const {
    Plan plan(variant, threads, std::move(tables));
    int slots = 0;
    std::vector<int> tensors;
    const auto tensor = [&](int columns, Element element) {
      tensors.push_back(plan.tensor(s.tokens, columns, element, slots++));
      return tensors.back();
    };
    const auto pack = [&](const std::vector<Layer>& layers) {
      std::vector<std::shared_ptr<const Dense>> packed;
      for (const Layer& layer : layers)
        packed.push_back(layer.pack(variant));
      return packed;
    };
    const Requantization to8{40000, 22}, score{50000, 22}, mean{60000, 24};
    const int in = tensor(dim, Element::int16), n = tensor(dim, Element::int8);
    const int q = tensor(dim, Element::int8), k = tensor(dim, Element::int8), v = tensor(dim, Element::int8);
    const int mixed = tensor(dim, Element::int8), sum = tensor(dim, Element::int16);
    const int hidden = tensor(s.hidden, Element::int8), words = tensor(s.hidden, Element::int16);
    const int bytes = tensor(s.hidden, Element::int8), out = tensor(dim, Element::int16);
    const int twice = tensor(dim, Element::int16), gates = tensor(s.experts, Element::uint16);
    const int end = tensor(dim, Element::int16);
    plan.norm(gain, bias, 14, in, n);
    plan.linear(qkv[0].pack(variant), n, q);
    plan.linear(qkv[1].pack(variant), n, k);
    plan.linear(qkv[2].pack(variant), n, v);
    plan.attention(s.heads, s.head_dim, score, mean, q, k, v, mixed);
    plan.linear_add(proj.pack(variant), mixed, in, sum, 0);
    plan.linear_gelu(up.pack(variant), to8, n, hidden);
    plan.linear(up.pack(variant), n, words);
    plan.gelu(to8, words, bytes);
    plan.linear_add(down.pack(variant), hidden, sum, out, 0);
    plan.add(sum, out, twice, 0);
    plan.route(router.pack(variant), std::min(2, s.experts), n, gates);
    plan.experts(pack(fc1), to8, pack(fc2), s.experts, n, gates, twice, end);
    plan.finish();
    plan.write(in, x.data());
    plan.run();
    plan.run();  // again, on the same memory
    std::vector<std::vector<std::byte>> all;
    for (int t : tensors) {
      const Tensor& at = plan.at(t);
      all.emplace_back(static_cast<std::size_t>(at.rows) * at.columns * at.element_bytes());
      plan.read(t, all.back().data());
    }
    return all;
  }
};

void check_network(const Sizes& sizes, std::shared_ptr<const Tables> tables) {
  const Network network{sizes};
  const auto expected = network.run(Variant::portable, 1, tables);
  require(expected[7] == expected[9], "GELU behind a layer", 0, sizes.tokens);
  for (Variant variant : variants()) {
    for (int threads : {1, 2, 4}) {
      const auto found = network.run(variant, threads, tables);
      for (std::size_t i = 0; i < found.size(); ++i) {
        require(found[i] == expected[i], "a tensor", static_cast<int>(variant), static_cast<int>(100 * threads + i));
      }
    }
  }
}

}  // namespace
}  // namespace codesign

int main() {
  using namespace codesign;
  for (Variant variant : variants()) {
    for (int rows : {1, 2, 7, 17, 33}) {
      for (int inputs : {1, 63, 192}) {
        for (int limit : {1, 7, 127})
          check_sums(variant, rows, 5 + 16 * (rows % 4), inputs, limit, false);
      }
    }
    check_sums(variant, 2, 17, 8192, 127, true);
  }
  const auto tables = make_tables();
  for (const Sizes& sizes : {Sizes{1, 1, 1, 1, 1}, Sizes{37, 3, 12, 50, 5}, Sizes{70, 2, 64, 100, 40}}) {
    check_network(sizes, tables);
  }
  std::printf("%zu variants agree\n", variants().size());
  return 0;
}
