// SPDX-License-Identifier: Apache-2.0
// AMX: tiles of 16 rows x 64 inputs by 64 inputs x 16 outputs (a product of tiles takes 16 cycles however few the
// rows). The first rows of a pair of panels expand its codes while the tiles multiply; later rows find them in scratch.
#pragma once

#include <atomic>
#include <type_traits>

#include "levels_avx512.hpp"

namespace codesign::levels {
namespace {

// GCC's _tile_loadd does not say that it reads memory: stores that come before it must not be moved behind it.
inline void finish_stores() {
  std::atomic_signal_fence(std::memory_order_seq_cst);
}

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
  finish_stores();
  return to;
}

// Chunks that are multiplied before the sums of later rows need the codes again, so that these stay in the L1 cache.
constexpr std::int64_t kBlockChunks = 8;
constexpr std::int64_t kAhead = 2;  // chunks between writing codes and reading them as tiles

template <class Expander, class Sink>
struct Work {
  const Expander& expander;
  const Sink& sink;
  const std::int8_t* x;  // tiled
  std::int64_t rows, chunks;
  std::uint8_t* codes;  // [kBlockChunks][2 panels][16 cells]
  std::int32_t* sums;   // [row tiles][2 panels][16][16], of the blocks of chunks before
  std::int64_t panel;
};

// Where the codes of a chunk and P panels are: as many chunks as fit take turns.
template <int P>
inline std::uint8_t* place(std::uint8_t* codes, std::int64_t chunk) {
  constexpr std::int64_t kChunks = P == 4 ? kBlockChunks / 2 : kBlockChunks;
  return codes + chunk % kChunks * (P == 4 ? 4 : 2) * kTileBytes;
}

template <int P, class Expander>
inline void expand_chunk(const Expander& expander, const typename Expander::Panel (&from)[P], std::int64_t chunk,
                         std::uint8_t* codes) {
  std::uint8_t* to = place<P>(codes, chunk);
  if constexpr (Expander::kPairs) {
    for (int p = 0; p + 1 < P; p += 2) {
      expander.pair(from[p], p / 2, chunk, to + p * kTileBytes, to + (p + 1) * kTileBytes);
    }
  } else if constexpr (!Expander::kTiles) {
    const Expander own = expander;  // a store of codes could otherwise change it
#pragma GCC unroll 4
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 16
      for (std::int64_t i = 0; i < kCells; ++i) {
        _mm512_store_si512(to + p * kTileBytes + i * kCell, own.cell(from[p], chunk * kCells + i));
      }
    }
  }
  finish_stores();
}

// Codes of a chunk and panel as a tile: cells of 8 bits are that already.
template <int P, class Expander, class Sink>
inline const std::uint8_t* tile_of(const Work<Expander, Sink>& work, const typename Expander::Panel (&from)[P],
                                   std::int64_t chunk, int p) {
  if constexpr (Expander::kTiles) {
    return from[p].cells + chunk * kTileBytes;
  } else {
    return place<P>(work.codes, chunk) + p * kTileBytes;
  }
}

// The sums of a tile and panel p to where they go; those of even panels are still there for the next one.
template <class Expander, class Sink>
void emit(const Work<Expander, Sink>& work, std::int64_t tile, int p, const std::int32_t* sums) {
  const std::int64_t first = tile * kTileRows, left = work.rows - first;
  work.sink.put(first, left < kTileRows ? left : kTileRows, p, sums);
}

// The sums in tiles 0 (and 1), and for one tile of rows those of the odd chunks in 2 (and 3), to memory or out.
template <int T, int P, class Expander, class Sink>
void put_sums(const Work<Expander, Sink>& work, std::int64_t tile, bool last) {
  constexpr std::int64_t kSize = kTileRows * kPanel;
  std::int32_t* sums = work.sums + tile * 2 * kSize;
  _tile_stored(0, sums, 64);
  if constexpr (P == 2) {
    _tile_stored(1, sums + kSize, 64);
  }
  std::int32_t* second = sums + 2 * kSize;
  _tile_stored(2, second, 64);
  if constexpr (P == 2) {
    _tile_stored(3, second + kSize, 64);
  }
  if constexpr (T == 1) {
    const std::int64_t rows = work.rows < kTileRows ? work.rows : kTileRows;
    for (std::int64_t i = 0; i < P * kSize; i += i % kSize == (rows - 1) * kPanel ? kSize - i % kSize : kPanel) {
      _mm512_store_si512(sums + i, _mm512_add_epi32(_mm512_load_si512(sums + i), _mm512_load_si512(second + i)));
    }
    finish_stores();
  }
  if (last) {
    for (int i = 0; i < T * 2; ++i) {
      if (i % 2 < P) {
        emit(work, tile + i / 2, i % 2, sums + i * kSize);
      }
    }
  }
}

template <int T, int P>
inline void get_sums(const std::int32_t* sums, bool first) {
  constexpr std::int64_t kSize = kTileRows * kPanel;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  if (first) {
    return;
  }
  _tile_loadd(0, sums, 64);
  if constexpr (P == 2) {
    _tile_loadd(1, sums + kSize, 64);
  }
  if constexpr (T == 2) {
    _tile_loadd(2, sums + 2 * kSize, 64);
    if constexpr (P == 2) {
      _tile_loadd(3, sums + 3 * kSize, 64);
    }
  }
}

// One tile of rows: a product waits 52 cycles for the sums it adds to, so odd chunks have sums of their own.
template <int P, bool kOdd>
inline void multiply_one(const std::int8_t* x, const std::uint8_t* codes, const std::uint8_t* next) {
  _tile_loadd(4, x, kChunk);
  _tile_loadd(6, codes, kCell);
  if constexpr (kOdd) {
    _tile_dpbsud(2, 4, 6);
  } else {
    _tile_dpbsud(0, 4, 6);
  }
  if constexpr (P == 2) {
    _tile_loadd(7, next, kCell);
    if constexpr (kOdd) {
      _tile_dpbsud(3, 4, 7);
    } else {
      _tile_dpbsud(1, 4, 7);
    }
  }
}

template <int P>
inline void multiply_two(const std::int8_t* x0, const std::int8_t* x1, const std::uint8_t* codes,
                         const std::uint8_t* next) {
  _tile_loadd(6, codes, kCell);
  _tile_loadd(4, x0, kChunk);
  _tile_dpbsud(0, 4, 6);
  if constexpr (P == 2) {
    _tile_loadd(7, next, kCell);
    _tile_dpbsud(1, 4, 7);
  }
  _tile_loadd(5, x1, kChunk);
  _tile_dpbsud(2, 5, 6);
  if constexpr (P == 2) {
    _tile_dpbsud(3, 5, 7);
  }
}

// T (1 or 2) tiles of rows by P (1 or 2) panels over chunks begin .. end - 1; kExpand: the first to need the codes.
template <int T, int P, bool kExpand, class Expander, class Sink>
void block(const Work<Expander, Sink>& work, std::int64_t tile, std::int64_t begin, std::int64_t end) {
  const std::int64_t chunks = work.chunks;
  const std::int8_t* x0 = work.x + tile * chunks * kTileBytes;
  const std::int8_t* x1 = x0 + chunks * kTileBytes;
  typename Expander::Panel from[P];
  for (int p = 0; p < P; ++p) {
    from[p] = work.expander.panel(work.panel + p);
  }
  get_sums<T, P>(work.sums + tile * 2 * kTileRows * kPanel, begin == 0);
  if constexpr (kExpand) {
    for (std::int64_t c = begin; c < begin + kAhead && c < end; ++c) {
      expand_chunk<P>(work.expander, from, c, work.codes);
    }
  }
  for (std::int64_t c = begin; c < end; ++c) {
    if (kExpand && c + kAhead < end) {
      expand_chunk<P>(work.expander, from, c + kAhead, work.codes);
    }
    const std::uint8_t* codes = tile_of<P>(work, from, c, 0);
    const std::uint8_t* next = tile_of<P>(work, from, c, P - 1);
    if constexpr (T == 2) {
      multiply_two<P>(x0 + c * kTileBytes, x1 + c * kTileBytes, codes, next);
    } else if (c % 2 == 0) {
      multiply_one<P, false>(x0 + c * kTileBytes, codes, next);
    } else {
      multiply_one<P, true>(x0 + c * kTileBytes, codes, next);
    }
  }
  put_sums<T, P>(work, tile, end == chunks);
}

// At most 16 rows with four panels, whose sums need not wait for each other.
template <class Expander, class Sink>
void four_panels(const Work<Expander, Sink>& work) {
  const std::int64_t chunks = work.chunks;
  const typename Expander::Panel from[4] = {work.expander.panel(work.panel), work.expander.panel(work.panel + 1),
                                            work.expander.panel(work.panel + 2), work.expander.panel(work.panel + 3)};
  get_sums<1, 4>(nullptr, true);
  for (std::int64_t c = 0; c < kAhead && c < chunks; ++c) {
    expand_chunk<4>(work.expander, from, c, work.codes);
  }
  for (std::int64_t c = 0; c < chunks; ++c) {
    if (c + kAhead < chunks) {
      expand_chunk<4>(work.expander, from, c + kAhead, work.codes);
    }
    _tile_loadd(4, work.x + c * kTileBytes, kChunk);
    _tile_loadd(5, tile_of<4>(work, from, c, 0), kCell);
    _tile_dpbsud(0, 4, 5);
    _tile_loadd(6, tile_of<4>(work, from, c, 1), kCell);
    _tile_dpbsud(1, 4, 6);
    _tile_loadd(7, tile_of<4>(work, from, c, 2), kCell);
    _tile_dpbsud(2, 4, 7);
    _tile_loadd(5, tile_of<4>(work, from, c, 3), kCell);
    _tile_dpbsud(3, 4, 5);
  }
  constexpr std::int64_t kSize = kTileRows * kPanel;
  _tile_stored(0, work.sums, 64);
  _tile_stored(1, work.sums + kSize, 64);
  _tile_stored(2, work.sums + 2 * kSize, 64);
  _tile_stored(3, work.sums + 3 * kSize, 64);
  for (int p = 0; p < 4; ++p) {
    emit(work, 0, p, work.sums + p * kSize);
  }
}

template <int P, class Expander, class Sink>
void all_rows(const Work<Expander, Sink>& work) {
  const std::int64_t chunks = work.chunks, tiles = (work.rows + kTileRows - 1) / kTileRows;
  if (tiles == 1) {
    block<1, P, true>(work, 0, 0, chunks);
    return;
  }
  const std::int64_t length = tiles == 2 ? chunks : kBlockChunks;
  for (std::int64_t begin = 0; begin < chunks; begin += length) {
    const std::int64_t end = begin + length < chunks ? begin + length : chunks;
    block<2, P, true>(work, 0, begin, end);
    std::int64_t tile = 2;
    for (; tile + 2 <= tiles; tile += 2) {
      block<2, P, false>(work, tile, begin, end);
    }
    if (tile < tiles) {
      block<1, P, false>(work, tile, begin, end);
    }
  }
}

// All rows by the panels; `sink_of(P, panel)` is where the sums of P (an integral constant) panels go.
template <class SomeRows, class Expander, class SinkOf>
void multiply(const SomeRows& rows, const Expander& expander, PanelRange panels, const SinkOf& sink_of) {
  const std::int8_t* x = tiled(rows);
  alignas(64) std::uint8_t codes[kBlockChunks * 2 * kTileBytes];
  // One tile more than there are: the sums of odd chunks go behind those of a single tile of rows.
  const std::int64_t tiles_of_rows = (rows.count + kTileRows - 1) / kTileRows;
  auto* sums = static_cast<std::int32_t*>(
      scratch(Slot::weights, static_cast<std::size_t>((tiles_of_rows + 1) * 2 * kTileBytes)));
  const Tiles tiles(rows.count);
  std::int64_t panel = panels.begin;
  const auto to = [&](const auto& sink) {
    return Work<Expander, std::decay_t<decltype(sink)>>{expander, sink, x, rows.count, rows.chunks, codes, sums, panel};
  };
  const bool four = rows.count <= kTileRows && (Expander::kFourPanels || rows.chunks > kBlockChunks);
  for (; four && panel + 4 <= panels.end; panel += 4) {
    four_panels(to(sink_of(std::integral_constant<int, 4>(), panel)));
  }
  for (; panel + 2 <= panels.end; panel += 2) {
    all_rows<2>(to(sink_of(std::integral_constant<int, 2>(), panel)));
  }
  if (panel < panels.end) {
    all_rows<1>(to(sink_of(std::integral_constant<int, 1>(), panel)));
  }
}

}  // namespace
}  // namespace codesign::levels
