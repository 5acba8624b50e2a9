// SPDX-License-Identifier: Apache-2.0
#include "codesign/mixture.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

// Loops below are compiled for several processors; the loader chooses. Not under sanitizers, whose start is later.
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define CODESIGN_CLONES __attribute__((target_clones("arch=skylake-avx512", "arch=haswell", "default")))
#else
#define CODESIGN_CLONES
#endif

namespace codesign {
namespace {

constexpr int kSegmentBits = 6;
constexpr int kGuardBits = 4;
constexpr int kGateBits = 15;

inline std::int64_t shift_round(std::int64_t value, int shift) {
  return (value + (std::int64_t{1} << (shift - 1))) >> shift;
}

inline std::int64_t clamp(std::int64_t value, std::int64_t low, std::int64_t high) {
  return value < low ? low : value > high ? high : value;
}

// Sums of one row to int16.
template <typename Sum>
inline void rescale_row(const Sum* sums, const Rescaler& by, std::int64_t begin, std::int64_t end, std::int16_t* out) {
  for (std::int64_t n = begin; n < end; ++n) {
    const std::int64_t scaled = (static_cast<std::int64_t>(sums[n]) + by.bias[n]) * by.multiplier[n];
    out[n - begin] = static_cast<std::int16_t>(clamp(shift_round(scaled, by.shift[n]), INT16_MIN, INT16_MAX));
  }
}

CODESIGN_CLONES void rescale32(const std::int32_t* sums, const Rescaler& by, std::int64_t begin, std::int64_t end,
                               std::int16_t* out) {
  rescale_row(sums, by, begin, end, out);
}

CODESIGN_CLONES void rescale64(const std::int64_t* sums, const Rescaler& by, std::int64_t begin, std::int64_t end,
                               std::int16_t* out) {
  rescale_row(sums, by, begin, end, out);
}

void rescale(const std::int32_t* s, const Rescaler& by, std::int64_t b, std::int64_t e, std::int16_t* out) {
  rescale32(s, by, b, e, out);
}
void rescale(const std::int64_t* s, const Rescaler& by, std::int64_t b, std::int64_t e, std::int16_t* out) {
  rescale64(s, by, b, e, out);
}

// max(u, 0) - delta(|u|), for GELU and SiLU alike.
CODESIGN_CLONES void soften_row(const std::int16_t* u, std::int64_t count, const std::int32_t* table, std::int32_t last,
                                std::int32_t* out) {
  for (std::int64_t n = 0; n < count; ++n) {
    const std::int32_t value = u[n];
    const std::int32_t a = value < 0 ? -value : value;
    const std::int32_t i = std::min(a >> kSegmentBits, last - 1);
    const std::int32_t part = a & ((1 << kSegmentBits) - 1);
    const std::int32_t left = table[i];
    const std::int32_t sum = (left << kSegmentBits) + (table[i + 1] - left) * part;
    const std::int32_t delta = (sum + (1 << (kSegmentBits + kGuardBits - 1))) >> (kSegmentBits + kGuardBits);
    out[n] = std::max(value, 0) - ((a >> kSegmentBits) >= last ? 0 : delta);
  }
}

CODESIGN_CLONES void narrow(const std::int32_t* soft, const std::int16_t* up, std::int64_t count,
                            std::int64_t multiplier, int shift, std::int8_t* out) {
  for (std::int64_t n = 0; n < count; ++n) {
    const std::int64_t value = static_cast<std::int64_t>(soft[n]) * up[n];
    out[n] = static_cast<std::int8_t>(clamp(shift_round(value * multiplier, shift), INT8_MIN, INT8_MAX));
  }
}

CODESIGN_CLONES void narrow_alone(const std::int32_t* soft, std::int64_t count, std::int64_t multiplier, int shift,
                                  std::int8_t* out) {
  for (std::int64_t n = 0; n < count; ++n) {
    out[n] = static_cast<std::int8_t>(clamp(shift_round(soft[n] * multiplier, shift), INT8_MIN, INT8_MAX));
  }
}

CODESIGN_CLONES void weigh_row(std::int16_t* values, std::int64_t count, std::int32_t gate) {
  for (std::int64_t n = 0; n < count; ++n) {
    const std::int64_t product = static_cast<std::int64_t>(values[n]) * gate;
    values[n] = static_cast<std::int16_t>(clamp(shift_round(product, kGateBits), INT16_MIN, INT16_MAX));
  }
}

CODESIGN_CLONES void add_saturated(std::int16_t* y, const std::int16_t* value, std::int64_t count) {
  for (std::int64_t n = 0; n < count; ++n) {
    y[n] = static_cast<std::int16_t>(std::clamp<std::int32_t>(y[n] + value[n], INT16_MIN, INT16_MAX));
  }
}

constexpr std::int64_t kStretch = 512;  // outputs that are finished at a time, on the stack

std::int64_t panels_of(std::int64_t outputs) {
  return (outputs + 15) / 16;
}

// Calls task(part) for as many parts of the panels as there are threads.
template <typename Task>
void divide(Pool& pool, PanelRange panels, Task&& task) {
  const std::int64_t begin = panels.begin, count = panels.end - begin;
  const int parts = static_cast<int>(std::min<std::int64_t>(pool.threads(), count));
  pool.run(parts, [&](int i, int) { task(PanelRange{begin + count * i / parts, begin + count * (i + 1) / parts}); });
}

// Of a panel.
std::int64_t cells_of(std::int64_t inputs) {
  return (inputs + 63) / 64 * 16;
}

}  // namespace

// The residual format's multipliers are padded to whole panels, and so are its sums.
Mixture::Mixture(MixtureShape shape, Variant variant, std::shared_ptr<Pool> pool)
    : shape_(std::move(shape)),
      variant_(variant),
      pool_(std::move(pool)),
      first_{whole(shape_.hidden * (shape_.gated ? 2 : 1)), shape_.embed_dim, &MixtureLevel::first},
      second_{whole(shape_.embed_dim), shape_.hidden, &MixtureLevel::second} {}

std::int64_t Mixture::whole(std::int64_t outputs) const {
  return shape_.residual() ? panels_of(outputs) * 16 : outputs;
}

bool Mixture::sound(int level, const std::uint8_t* block) const {
  if (!shape_.residual())
    return true;
  const auto in = [](auto low, auto high) { return [=](auto value) { return low <= value && value <= high; }; };
  const std::int32_t limit = shape_.multiplier_limit;
  for (const Matrix* matrix : {&first_, &second_}) {
    const MatrixPlace& place = shape_.levels[static_cast<std::size_t>(level)].*matrix->place;
    const std::int64_t count = (matrix->inputs + kResidualGroup - 1) / kResidualGroup * matrix->outputs;
    const auto* const multipliers = reinterpret_cast<const std::int16_t*>(block + place.multipliers);
    const auto* const zeros = reinterpret_cast<const std::int32_t*>(block + place.zeros);
    if (!std::all_of(multipliers, multipliers + count, in(-limit, limit)))
      return false;
    if (level == 0 && !std::all_of(zeros, zeros + count, in(0, 3 * limit)))
      return false;
  }
  return true;
}

int Mixture::offset_of(int levels) const {
  return ((1 << shape_.levels[static_cast<std::size_t>(levels - 1)].position) >> 1) - shape_.offset;
}

template <>
void Mixture::product(const Matrix& matrix, const std::int8_t* x, std::int64_t rows, const Blocks& blocks, int first,
                      int last, int offset, PanelRange panels, std::int32_t* sums) {
  LevelWeight weight;
  weight.outputs = matrix.outputs;
  weight.inputs = matrix.inputs;
  weight.count = last - first;
  weight.offset = offset;
  for (int i = first; i < last; ++i) {
    const MixtureLevel& level = shape_.levels[static_cast<std::size_t>(i)];
    const std::uint8_t* cells = blocks[static_cast<std::size_t>(i)] + (level.*matrix.place).cells;
    if (level.trits) {
      const std::int64_t each = cells_of(matrix.inputs);
      cells_.resize(static_cast<std::size_t>(panels_of(matrix.outputs) * each * kTernaryBytes));
      divide(*pool_, panels, [&](PanelRange part) {
        const std::int64_t begin = part.begin * each, end = part.end * each;
        decode_trits(variant_, cells + begin * kTritBytes, end - begin, cells_.data() + begin * kTernaryBytes);
      });
      cells = cells_.data();
    }
    weight.levels[i - first] = {cells, level.bits, level.position};
  }
  divide(*pool_, panels, [&](PanelRange part) { level_gemm(variant_, x, rows, weight, sums, first > 0, part); });
}

template <>
void Mixture::product(const Matrix& matrix, const std::int8_t* x, std::int64_t rows, const Blocks& blocks, int,
                      int last, int, PanelRange panels, std::int64_t* sums) {
  ResidualWeight weight;
  weight.outputs = matrix.outputs;
  weight.inputs = matrix.inputs;
  weight.planes = last - 1;
  for (int i = 0; i < last; ++i) {
    const MatrixPlace& place = shape_.levels[static_cast<std::size_t>(i)].*matrix.place;
    const std::uint8_t* const block = blocks[static_cast<std::size_t>(i)];
    const auto* const multipliers = reinterpret_cast<const std::int16_t*>(block + place.multipliers);
    if (i == 0) {
      weight.base = block + place.cells;
      weight.base_multiplier = multipliers;
      weight.base_zero = reinterpret_cast<const std::int32_t*>(block + place.zeros);
    } else {
      weight.plane[i - 1] = block + place.cells;
      weight.plane_multiplier[i - 1] = multipliers;
    }
  }
  divide(*pool_, panels, [&](PanelRange part) { residual_gemm(variant_, x, rows, weight, sums, false, part); });
}

template <typename Sum>
void Mixture::soften(const Group& group, const Rescaler& fc1, const Sum* sums) {
  const std::int64_t hidden = shape_.hidden;
  const auto entries = static_cast<std::int32_t>(shape_.table.size()) - 1;
  divide(*pool_, {0, panels_of(hidden)}, [&](PanelRange part) {
    std::int16_t gate[kStretch], up[kStretch];
    std::int32_t soft[kStretch];
    const std::int64_t last = std::min(part.end * 16, hidden);
    for (std::int64_t row = 0; row < group.rows; ++row) {
      const Sum* const line = sums + row * first_.outputs;
      for (std::int64_t begin = part.begin * 16; begin < last; begin += kStretch) {
        const std::int64_t end = std::min(begin + kStretch, last);
        std::int8_t* const out = group.hidden + row * hidden + begin;
        rescale(line, fc1, begin, end, gate);
        soften_row(gate, end - begin, shape_.table.data(), entries, soft);
        if (shape_.gated) {
          rescale(line, fc1, hidden + begin, hidden + end, up);
          narrow(soft, up, end - begin, shape_.hidden_multiplier, shape_.hidden_shift, out);
        } else {
          narrow_alone(soft, end - begin, shape_.hidden_multiplier, shape_.hidden_shift, out);
        }
      }
    }
  });
}

template <typename Sum>
void Mixture::weigh(const Group& group, const Blocks& blocks, int levels, const Rescaler& fc2, PanelRange panels,
                    std::vector<Sum>& sums) {
  const std::int64_t columns = shape_.embed_dim;
  sums.resize(static_cast<std::size_t>(group.rows * second_.outputs));
  product<Sum>(second_, group.hidden, group.rows, blocks, 0, levels, offset_of(levels), panels, sums.data());
  divide(*pool_, panels, [&](PanelRange part) {
    const std::int64_t begin = part.begin * 16, end = std::min(part.end * 16, columns);
    for (std::int64_t row = 0; row < group.rows; ++row) {
      std::int16_t* const out = group.out + row * columns + begin;
      rescale(sums.data() + row * second_.outputs, fc2, begin, end, out);
      weigh_row(out, end - begin, group.gates[row]);
    }
  });
}

std::int64_t Mixture::first_panels() const {
  return panels_of(first_.outputs);
}

std::int64_t Mixture::second_panels() const {
  return panels_of(second_.outputs);
}

void Mixture::add(const Group& group, const Blocks& blocks, int first, int last, bool closing, PanelRange panels) {
  if (shape_.residual() || group.rows == 0)
    return;
  product<std::int32_t>(first_, group.x, group.rows, blocks, first, last, closing ? offset_of(last) : 0, panels,
                        group.sums);
}

void Mixture::activate(const Group& group, const Blocks& blocks, int levels, const Rescaler& fc1) {
  if (group.rows == 0)
    return;
  if (!shape_.residual())
    return soften(group, fc1, group.sums);
  wide_.resize(static_cast<std::size_t>(group.rows * first_.outputs));
  product<std::int64_t>(first_, group.x, group.rows, blocks, 0, levels, 0, {0, first_panels()}, wide_.data());
  soften(group, fc1, wide_.data());
}

void Mixture::contribute(const Group& group, const Blocks& blocks, int levels, const Rescaler& fc2, PanelRange panels) {
  if (group.rows == 0)
    return;
  if (shape_.residual())
    return weigh(group, blocks, levels, fc2, panels, wide_);
  weigh(group, blocks, levels, fc2, panels, narrow_);
}

void combine(const std::int16_t* residual, const std::int16_t* contributions, const std::int64_t* rows,
             const std::int64_t* starts, std::int64_t tokens, std::int64_t columns, std::int16_t* y) {
  for (std::int64_t t = 0; t < tokens; ++t) {
    std::int16_t* const line = y + t * columns;
    std::memcpy(line, residual + t * columns, static_cast<std::size_t>(columns) * sizeof *line);
    for (std::int64_t i = starts[t]; i < starts[t + 1]; ++i) {
      add_saturated(line, contributions + rows[i] * columns, columns);
    }
  }
}

}  // namespace codesign
