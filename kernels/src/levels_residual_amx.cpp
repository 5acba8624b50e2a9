// SPDX-License-Identifier: Apache-2.0
// The residual format by AMX: of each group of 128 inputs, one product of tiles a plane and chunk, then the sums of
// all planes times their multipliers in double, where every term and partial sum is an integer below 2^53 (as in
// residual_avx512).
#include "levels_tiles.hpp"

namespace codesign::levels {
namespace {

constexpr std::int64_t kGroupChunks = kResidualGroup / kChunk;
constexpr std::int64_t kSums = kTileRows * kPanel;

// Base and kPlanes planes of a group and panel.
template <int kPlanes>
struct Group {
  static constexpr int kKinds = kPlanes + 1;
  alignas(64) std::uint8_t codes[kKinds][kGroupChunks * kTileBytes];
  Wide factors[kKinds];  // of the sums as they are: digits in their fields, so times 2^-field
  Wide minus;            // of the sum of the inputs
  std::int64_t chunks;
};

// 2^-field of each output's digits.
inline Wide field_factors(__m512i lane_shift) {
  const __m512i exponents = _mm512_slli_epi32(_mm512_sub_epi32(_mm512_set1_epi32(127), lane_shift), 23);
  const __m512 factors = _mm512_castsi512_ps(exponents);
  return {_mm512_cvtps_pd(_mm512_castps512_ps256(factors)), _mm512_cvtps_pd(_mm512_extractf32x8_ps(factors, 1))};
}

inline Wide times(const Wide& a, const Wide& b) {
  return {_mm512_mul_pd(a.low, b.low), _mm512_mul_pd(a.high, b.high)};
}

inline Wide plus(const Wide& a, const Wide& b) {
  return {_mm512_add_pd(a.low, b.low), _mm512_add_pd(a.high, b.high)};
}

template <int kBits>
void expand(const Single<kBits>& expander, std::int64_t panel, std::int64_t chunk, std::int64_t chunks,
            std::uint8_t* to) {
  const Single<kBits> own = expander;  // a store of codes could otherwise change it
  const auto from = own.panel(panel);
  for (std::int64_t i = 0; i < chunks * kCells; ++i) {
    _mm512_store_si512(to + i * kCell, own.cell(from, chunk * kCells + i));
  }
}

template <int kPlanes>
class Residual {
 public:
  Residual(const ResidualRows& rows, const ResidualWeight& weight)
      : rows_(rows),
        weight_(weight),
        base_({weight.base, 2, 0}, rows.chunks),
        planes_{Single<1>({weight.plane[0], 1, 0}, rows.chunks), Single<1>({weight.plane[1], 1, 0}, rows.chunks)} {}

  void run(std::int64_t* acc, bool accumulate, PanelRange panels) {
    const std::int64_t tiles = (rows_.count + kTileRows - 1) / kTileRows;
    const std::int8_t* x = tiled(rows_);
    auto* totals =
        static_cast<Wide*>(scratch(Slot::weights, sizeof(Wide) * static_cast<std::size_t>(tiles * kTileRows)));
    const Tiles configured(rows_.count);
    for (std::int64_t panel = panels.begin; panel < panels.end; ++panel) {
      for (std::int64_t t = 0; t < rows_.count; ++t) {
        totals[t] = {_mm512_setzero_pd(), _mm512_setzero_pd()};
      }
      for (std::int64_t group = 0; group < rows_.groups; ++group) {
        load(panel, group);
        for (std::int64_t tile = 0; tile < tiles; ++tile) {
          std::int32_t* sums = sums_ + tile % 2 * kSums * Group<kPlanes>::kKinds;
          multiply(x + (tile * rows_.chunks + group * kGroupChunks) * kTileBytes, sums);
          add(tile * kTileRows, group, sums, totals);
        }
      }
      emit(totals, panel, acc, accumulate);
    }
  }

 private:
  void load(std::int64_t panel, std::int64_t group) {
    const std::int64_t chunk = group * kGroupChunks, left = rows_.chunks - chunk;
    const std::int64_t column = panel * kPanel, at = group * weight_.outputs + column;
    const __mmask16 mask = mask_of(panel);
    group_.chunks = left < kGroupChunks ? left : kGroupChunks;
    expand(base_, panel, chunk, group_.chunks, group_.codes[0]);
    group_.factors[0] = times(multipliers(weight_.base_multiplier + at, mask), field_factors(base_.lane_shift));
    group_.minus = wide(_mm512_maskz_loadu_epi32(mask, weight_.base_zero + at));
    for (int p = 0; p < kPlanes; ++p) {
      expand(planes_[p], panel, chunk, group_.chunks, group_.codes[p + 1]);
      const Wide multiplier = multipliers(weight_.plane_multiplier[p] + at, mask);
      group_.minus = plus(group_.minus, multiplier);
      group_.factors[p + 1] = times(plus(multiplier, multiplier), field_factors(planes_[p].lane_shift));
    }
  }

  void multiply(const std::int8_t* x, std::int32_t* sums) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    for (std::int64_t c = 0; c < group_.chunks; ++c) {
      _tile_loadd(4, x + c * kTileBytes, kChunk);
      _tile_loadd(5, group_.codes[0] + c * kTileBytes, kCell);
      _tile_dpbsud(0, 4, 5);
      if constexpr (kPlanes > 0) {
        _tile_loadd(6, group_.codes[1] + c * kTileBytes, kCell);
        _tile_dpbsud(1, 4, 6);
      }
      if constexpr (kPlanes > 1) {
        _tile_loadd(7, group_.codes[2] + c * kTileBytes, kCell);
        _tile_dpbsud(2, 4, 7);
      }
    }
    _tile_stored(0, sums, 64);
    if constexpr (kPlanes > 0) {
      _tile_stored(1, sums + kSums, 64);
    }
    if constexpr (kPlanes > 1) {
      _tile_stored(2, sums + 2 * kSums, 64);
    }
  }

  void add(std::int64_t row, std::int64_t group, const std::int32_t* sums, Wide* totals) const {
    const Group<kPlanes>& g = group_;
    const std::int64_t count = rows_.count - row < kTileRows ? rows_.count - row : kTileRows;
    for (std::int64_t t = 0; t < count; ++t) {
      Wide total = totals[row + t];
      for (int kind = 0; kind <= kPlanes; ++kind) {
        const auto* dots = reinterpret_cast<const __m256i*>(sums + kind * kSums + t * kPanel);
        add_product(total, g.factors[kind], {_mm512_cvtepi32_pd(dots[0]), _mm512_cvtepi32_pd(dots[1])});
      }
      const __m512d inputs = _mm512_set1_pd(-static_cast<double>(rows_.sums[(row + t) * rows_.groups + group]));
      add_product(total, g.minus, {inputs, inputs});
      totals[row + t] = total;
    }
  }

  void emit(const Wide* totals, std::int64_t panel, std::int64_t* acc, bool accumulate) const {
    const __mmask16 mask = mask_of(panel);
    for (std::int64_t t = 0; t < rows_.count; ++t) {
      store_sums(totals[t], mask, acc + t * weight_.outputs + panel * kPanel, accumulate);
    }
  }

  __mmask16 mask_of(std::int64_t panel) const {
    const std::int64_t left = weight_.outputs - panel * kPanel;
    return static_cast<__mmask16>(left >= kPanel ? 0xFFFF : (1 << left) - 1);
  }

  const ResidualRows& rows_;
  const ResidualWeight& weight_;
  Single<2> base_;
  Single<1> planes_[kMaxPlanes];
  Group<kPlanes> group_;
  alignas(64) std::int32_t sums_[2 * kSums * Group<kPlanes>::kKinds];
};

}  // namespace

void residual_amx(const ResidualRows& rows, const ResidualWeight& weight, std::int64_t* acc, bool accumulate,
                  PanelRange panels) {
  if (rows.count <= kFewRows) {
    residual_avx512(rows, weight, acc, accumulate, panels);
  } else if (weight.planes == 0) {
    Residual<0>(rows, weight).run(acc, accumulate, panels);
  } else if (weight.planes == 1) {
    Residual<1>(rows, weight).run(acc, accumulate, panels);
  } else {
    Residual<2>(rows, weight).run(acc, accumulate, panels);
  }
}

}  // namespace codesign::levels
