// SPDX-License-Identifier: Apache-2.0
// AMX: tiles of 16 rows x 64 inputs times 64 inputs x 16 outputs, signed by signed. The epilogue of one block of
// 32 x 32 sums runs while the tiles compute the next.
#include <immintrin.h>

#include <algorithm>

#include "operators_avx512.hpp"

namespace codesign {
namespace {

constexpr int kTileRows = 16;
constexpr int kTileBytes = 64;
constexpr std::size_t kLine = 64;  // of the cache
constexpr int kTiles = 4;          // of sums: 2 x 2, or 1 x 4 where no more than 16 rows are left
constexpr int kSums = kTiles * kTileRows * kPanelOutputs;
static_assert(kTileRows == kRowMultiple);

struct alignas(64) TileConfig {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t bytes[16] = {};
  std::uint8_t rows[16] = {};
};

// All eight tiles are full: rows beyond the last are read as they are, and not stored. (A tile of one row takes as
// long, and another configuration takes long to load.)
constexpr TileConfig full_tiles() {
  TileConfig config;
  std::fill_n(config.bytes, 8, kTileBytes);
  std::fill_n(config.rows, 8, kTileRows);
  return config;
}
constexpr TileConfig kFullTiles = full_tiles();

void enter() {
  _tile_loadconfig(&kFullTiles);
}

void leave() {
  _tile_release();
}

// Rows in tiles 4 and 5, weights in 6 and 7. kP panels wide, kR tiles high.
template <int kR, int kP>
void block(const std::int8_t* x, std::ptrdiff_t stride, const std::uint8_t* cells, std::size_t panel, int blocks,
           const std::int32_t* bias, std::int32_t* sums) {
  static_assert(kR * kP <= kTiles && (kR == 1 || kP <= 2));
  constexpr int kStride = kP * kPanelOutputs * static_cast<int>(sizeof(std::int32_t));
  _tile_loadd(0, bias, 0);  // every row is the bias
  if constexpr (kP > 1)
    _tile_loadd(1, bias + kPanelOutputs, 0);
  if constexpr (kP > 2)
    _tile_loadd(2, bias + 2 * kPanelOutputs, 0);
  if constexpr (kP > 3)
    _tile_loadd(3, bias + 3 * kPanelOutputs, 0);
  if constexpr (kR > 1)
    _tile_loadd(2, bias, 0);
  if constexpr (kR > 1 && kP > 1)
    _tile_loadd(3, bias + kPanelOutputs, 0);
  for (int b = 0; b < blocks; ++b, cells += kBlockBytes, x += kBlockInputs) {
    _tile_loadd(4, x, stride);
    _tile_loadd(6, cells, kTileBytes);
    _tile_dpbssd(0, 4, 6);
    if constexpr (kP > 1) {
      _tile_loadd(7, cells + panel, kTileBytes);
      _tile_dpbssd(1, 4, 7);
    }
    if constexpr (kR > 1) {
      _tile_loadd(5, x + kTileRows * stride, stride);
      _tile_dpbssd(2, 5, 6);
      if constexpr (kP > 1)
        _tile_dpbssd(3, 5, 7);
    }
    if constexpr (kP > 2) {
      _tile_loadd(6, cells + 2 * panel, kTileBytes);
      _tile_dpbssd(2, 4, 6);
    }
    if constexpr (kP > 3) {
      _tile_loadd(7, cells + 3 * panel, kTileBytes);
      _tile_dpbssd(3, 4, 7);
    }
  }
  _tile_stored(0, sums, kStride);
  if constexpr (kP > 1)
    _tile_stored(1, sums + kPanelOutputs, kStride);
  if constexpr (kP > 2)
    _tile_stored(2, sums + 2 * kPanelOutputs, kStride);
  if constexpr (kP > 3)
    _tile_stored(3, sums + 3 * kPanelOutputs, kStride);
  constexpr int kBelow = kTileRows * kP * kPanelOutputs;
  if constexpr (kR > 1)
    _tile_stored(2, sums + kBelow, kStride);
  if constexpr (kR > 1 && kP > 1)
    _tile_stored(3, sums + kBelow + kPanelOutputs, kStride);
}

// A block whose sums are not stored yet.
struct Pending {
  const std::int32_t* sums = nullptr;
  Range rows{0, 0}, panels{0, 0};

  void store(const Linear& l) const {
    if (sums != nullptr) {
      avx512::store_block(l, sums, (panels.end - panels.begin) * kPanelOutputs, rows, panels);
    }
  }
};

class Product {
 public:
  Product(const Linear& l, const Scratch& scratch) : l_(l), scratch_(scratch) {}

  void run(Range rows, Range panels) {
    const int high = rows.end - rows.begin > kTileRows ? 2 : 1, most = kTiles / high;
    for (int p = panels.begin; p < panels.end; p += most) {
      const Range some{p, std::min(panels.end, p + most)};
      const std::uint8_t* cells = bytes_of(some);
      const std::uint8_t* next = l_.weights.panel(some.end);
      const std::size_t lines = l_.weights.panel_bytes() * (std::min(panels.end, some.end + most) - some.end) / kLine;
      const std::size_t blocks = (rows.end - rows.begin + high * kTileRows - 1) / (high * kTileRows);
      std::size_t asked = 0, block = 0;
      for (int r = rows.begin; r < rows.end; r += high * kTileRows) {
        // What the next panels are made of comes in while these are computed.
        for (const std::size_t share = lines * ++block / blocks; asked < share; ++asked) {
          _mm_prefetch(reinterpret_cast<const char*>(next + asked * kLine), _MM_HINT_T0);
        }
        compute({r, std::min(rows.end, r + high * kTileRows)}, some, cells);
      }
    }
    pending_.store(l_);
  }

 private:
  std::size_t panel_bytes() const { return static_cast<std::size_t>(l_.weights.blocks()) * kBlockBytes; }

  const std::uint8_t* bytes_of(Range panels) const {
    const Weights& w = l_.weights;
    if (w.bits == 8) {
      return w.panel(panels.begin);
    }
    avx512::expand(w, w.panel(panels.begin), panel_bytes() / kCellCodes * (panels.end - panels.begin), false,
                   scratch_.expanded());
    return scratch_.expanded();
  }

  void compute(Range rows, Range panels, const std::uint8_t* cells) {
    using Block = void (*)(const std::int8_t*, std::ptrdiff_t, const std::uint8_t*, std::size_t, int,
                           const std::int32_t*, std::int32_t*);
    constexpr Block kOneHigh[] = {block<1, 1>, block<1, 2>, block<1, 3>, block<1, 4>};
    constexpr Block kTwoHigh[] = {block<2, 1>, block<2, 2>};
    std::int32_t* sums = scratch_.sums() + turn_ * kSums;
    turn_ ^= 1;
    const int wide = panels.end - panels.begin;
    const Block call = (rows.end - rows.begin > kTileRows ? kTwoHigh : kOneHigh)[wide - 1];
    call(l_.x + rows.begin * l_.x_stride, l_.x_stride, cells, panel_bytes(), l_.weights.blocks(),
         l_.bias + panels.begin * kPanelOutputs, sums);
    pending_.store(l_);
    pending_ = {sums, rows, panels};
  }

  const Linear& l_;
  const Scratch& scratch_;
  Pending pending_;
  int turn_ = 0;
};

void linear(const Linear& l, Range rows, Range panels, const Scratch& scratch) {
  Product(l, scratch).run(rows, panels);
}

}  // namespace

const Kernels& amx_kernels() {
  static const Kernels table{true,
                             enter,
                             leave,
                             linear,
                             avx512::norm_rows,
                             avx512::gelu_words,
                             avx512::add_words,
                             avx512::gated_add_words,
                             avx512::probabilities,
                             avx512::mix_sums,
                             avx512::route_rows,
                             avx512::pack_keys,
                             avx512::pack_values};
  return table;
}

}  // namespace codesign
