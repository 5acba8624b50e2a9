// SPDX-License-Identifier: Apache-2.0
// Tiles of AMX: their configuration, and rows in the shape that they are loaded from.
#pragma once

#include "levels_avx512.hpp"

namespace codesign::levels {
namespace {

constexpr std::int64_t kTileRows = 16;
constexpr std::int64_t kTileBytes = 1024;
constexpr std::int64_t kFewRows = 2;  // up to here VPDPBUSD is faster

struct alignas(64) TileConfig {
  std::uint8_t palette = 1;
  std::uint8_t start_row = 0;
  std::uint8_t reserved[14] = {};
  std::uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// Tiles 0..3 are sums, 4 (and 5 for a second tile of rows) rows, the others codes.
class Tiles {
 public:
  explicit Tiles(std::int64_t rows) {
    TileConfig config;
    for (int i = 0; i < 5 && rows < kTileRows; ++i) {
      config.rows[i] = static_cast<std::uint8_t>(rows);
    }
    _tile_loadconfig(&config);
  }
  ~Tiles() { _tile_release(); }
  Tiles(const Tiles&) = delete;
  Tiles& operator=(const Tiles&) = delete;
};

// Rows as tiles, [row tiles][chunks][16][64], zeros below the last row.
template <class Some>
const std::int8_t* tiled(const Some& rows) {
  const std::int64_t tiles = (rows.count + kTileRows - 1) / kTileRows;
  auto* to =
      static_cast<std::int8_t*>(scratch(Slot::tiles, static_cast<std::size_t>(tiles * rows.chunks * kTileBytes)));
  for (std::int64_t t = 0; t < tiles * kTileRows; ++t) {
    std::int8_t* at = to + (t / kTileRows) * rows.chunks * kTileBytes + (t % kTileRows) * kChunk;
    for (std::int64_t c = 0; c < rows.chunks; ++c) {
      const __m512i v =
          t < rows.count ? _mm512_loadu_si512(rows.x + t * rows.stride + c * kChunk) : _mm512_setzero_si512();
      _mm512_store_si512(at + c * kTileBytes, v);
    }
  }
  return to;
}

}  // namespace
}  // namespace codesign::levels
