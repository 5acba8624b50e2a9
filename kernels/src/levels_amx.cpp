// SPDX-License-Identifier: Apache-2.0
// AMX: tiles of 16 rows x 64 inputs by 64 inputs x 16 outputs (a product of tiles takes 16 cycles however few the
// rows). The first rows of a pair of panels expand its codes while the tiles multiply; later rows find them in scratch.
#include "levels_tiles.hpp"

namespace codesign::levels {
namespace {

// Chunks that are multiplied before the sums of later rows need the codes again, so that these stay in the L1 cache.
constexpr std::int64_t kBlockChunks = 8;
constexpr std::int64_t kAhead = 2;  // chunks between writing codes and reading them as tiles

template <class Expander>
struct Work {
  const Expander& expander;
  const Rows& rows;
  const std::int8_t* x;  // tiled
  std::uint8_t* codes;   // [kBlockChunks][2 panels][16 cells]
  std::int32_t* sums;    // [row tiles][2 panels][16][16], of the blocks of chunks before
  const PanelOutput* to;
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
  if constexpr (Expander::kTiles) {
    return;
  }
  const Expander own = expander;  // a store of codes could otherwise change it
  std::uint8_t* to = place<P>(codes, chunk);
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 16
    for (std::int64_t i = 0; i < kCells; ++i) {
      _mm512_store_si512(to + p * kTileBytes + i * kCell, own.cell(from[p], chunk * kCells + i));
    }
  }
}

// Codes of a chunk and panel as a tile: cells of 8 bits are that already.
template <int P, class Expander>
inline const std::uint8_t* tile_of(const Work<Expander>& work, const typename Expander::Panel (&from)[P],
                                   std::int64_t chunk, int p) {
  if constexpr (Expander::kTiles) {
    return from[p].cells + chunk * kTileBytes;
  } else {
    return place<P>(work.codes, chunk) + p * kTileBytes;
  }
}

// Copies keep what every row needs in registers: a store of int8 could otherwise change it.
template <class Expander>
void emit(const Work<Expander>& work, std::int64_t tile, int p, const std::int32_t* sums) {
  const Expander expander = work.expander;
  const PanelOutput to = work.to[p];
  const std::int64_t first = tile * kTileRows;
  const std::int32_t* corrections = work.rows.corrections + first;
  const std::int64_t count = work.rows.count - first < kTileRows ? work.rows.count - first : kTileRows;
  for (std::int64_t t = 0; t < count; ++t) {
    to.emit(first + t, expander.finish(_mm512_load_si512(sums + t * kPanel)), corrections[t]);
  }
}

// The sums in tiles 0 (and 1), and for one tile of rows those of the odd chunks in 2 (and 3), to memory or out.
template <int T, int P, class Expander>
void put_sums(const Work<Expander>& work, std::int64_t tile, bool last) {
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
    const std::int64_t rows = work.rows.count < kTileRows ? work.rows.count : kTileRows;
    for (std::int64_t i = 0; i < P * kSize; i += i % kSize == (rows - 1) * kPanel ? kSize - i % kSize : kPanel) {
      _mm512_store_si512(sums + i, _mm512_add_epi32(_mm512_load_si512(sums + i), _mm512_load_si512(second + i)));
    }
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
template <int T, int P, bool kExpand, class Expander>
void block(const Work<Expander>& work, std::int64_t tile, std::int64_t begin, std::int64_t end) {
  const std::int64_t chunks = work.rows.chunks;
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
template <class Expander>
void four_panels(const Work<Expander>& work) {
  const std::int64_t chunks = work.rows.chunks;
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

template <int P, class Expander>
void all_rows(const Work<Expander>& work) {
  const std::int64_t chunks = work.rows.chunks, tiles = (work.rows.count + kTileRows - 1) / kTileRows;
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

void gemm(const Rows& rows, const LevelWeight& weight, const Output& out, PanelRange panels) {
  if (rows.count <= kFewRows) {
    gemm_avx512(rows, weight, out, panels);
    return;
  }
  const auto run = [&](const auto& expander) {
    const std::int8_t* x = tiled(rows);
    alignas(64) std::uint8_t codes[kBlockChunks * 2 * kTileBytes];
    // One tile more than there are: the sums of odd chunks go behind those of a single tile of rows.
    const std::int64_t tiles_of_rows = (rows.count + kTileRows - 1) / kTileRows;
    auto* sums = static_cast<std::int32_t*>(
        scratch(Slot::weights, static_cast<std::size_t>((tiles_of_rows + 1) * 2 * kTileBytes)));
    const Tiles tiles(rows.count);
    std::int64_t panel = panels.begin;
    const auto at = [&](const PanelOutput* to) {
      return Work<std::decay_t<decltype(expander)>>{expander, rows, x, codes, sums, to, panel};
    };
    const bool many = std::decay_t<decltype(expander)>::kFourPanels || rows.chunks > kBlockChunks;
    const bool four = rows.count <= kTileRows && many;
    for (; four && panel + 4 <= panels.end; panel += 4) {
      const PanelOutput to[4] = {{out, panel}, {out, panel + 1}, {out, panel + 2}, {out, panel + 3}};
      four_panels(at(to));
    }
    for (; panel < panels.end; panel += 2) {
      const bool two = panel + 1 < panels.end;
      const PanelOutput to[2] = {{out, panel}, {out, panel + (two ? 1 : 0)}};
      two ? all_rows<2>(at(to)) : all_rows<1>(at(to));
    }
  };
  if (!with_expander(weight, rows.chunks, run)) {
    by_level(gemm, rows, weight, out, panels);
  }
}

}  // namespace

const Kernels kAmxInt8{sum_avx512, gemm, residual_amx, trits_avx512};

}  // namespace codesign::levels
