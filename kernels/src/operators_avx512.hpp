// SPDX-License-Identifier: Apache-2.0
// What the variants avx512_vnni and amx_int8 share: everything but the matrix product.
#pragma once

#include "codesign/operators.hpp"

namespace codesign::avx512 {

// The epilogue of `rows` x 16 * `panels` sums (bias included), whose first is row `row` of panel `panel`.
void store_block(const Linear& l, const std::int32_t* sums, int sums_stride, Range rows, Range panels);

// `cells` cells of fewer than 8 bits as bytes: codes, or signed.
void expand(const Weights& w, const std::uint8_t* packed, std::size_t cells, bool codes, std::uint8_t* out);

void norm_rows(const Norm& norm, Range rows);
void gelu_words(const Gelu& gelu, const std::int16_t* u, std::int8_t* y, int count);
void add_words(const std::int16_t* a, const std::int16_t* b, std::int16_t* y, int count);
void gated_add_words(std::int16_t* y, const std::int16_t* o, std::uint32_t gate, int count);
std::int64_t probabilities(const Tables& tables, const std::int16_t* t, std::uint8_t* p, int count);
void mix_sums(const Mix& mix, const std::int32_t* sums, std::int64_t total, std::int8_t* y, int count);
void route_rows(const Route& route, Range rows);
void pack_keys(const Head& keys, std::uint8_t* cells, bool signed_cells);
void pack_values(const Head& values, std::uint8_t* cells, bool signed_cells);

}  // namespace codesign::avx512
