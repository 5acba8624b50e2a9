// SPDX-License-Identifier: Apache-2.0
// What the streaming runtime computes of a mixture layer (codesign/spec/moe.py) as blocks arrive: the tokens of one
// expert at one width, level by level, down to their contributions; and the sum of those.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "codesign/cpu.hpp"
#include "codesign/levels.hpp"
#include "codesign/pool.hpp"

namespace codesign {

// Byte offsets within a block: of the cells, and in the residual format of A and (base level only) Z.
struct MatrixPlace {
  std::int64_t cells = 0, multipliers = 0, zeros = 0;
};

struct MixtureLevel {
  int bits = 0, position = 0;
  bool trits = false;  // five codes to a byte
  MatrixPlace first, second;
};

struct MixtureShape {
  std::int64_t embed_dim = 0, hidden = 0;
  bool gated = false;        // SiLU-gated: gate rows, then up rows; else GELU
  int multiplier_limit = 0;  // of D2MoE's residual format: the largest |A|; 0 for the others
  int offset = 0;            // of the codes
  std::vector<MixtureLevel> levels;
  std::int64_t hidden_multiplier = 0;
  int hidden_shift = 1;
  std::vector<std::int32_t> table;  // GELU_DELTA or SILU_DELTA, 64 arguments an entry; 0 from its last entry on

  bool residual() const { return multiplier_limit > 0; }
};

// Of one expert at one width, each [outputs].
struct Rescaler {
  const std::int32_t* bias;
  const std::uint16_t* multiplier;
  const std::uint8_t* shift;
};

// Of all experts, each [sets, experts, outputs]: of the first matrix, then of the second. One set is for all widths.
struct LayerConstants {
  const std::int32_t* bias[2] = {};
  const std::uint16_t* multiplier[2] = {};
  const std::uint8_t* shift[2] = {};
  std::int64_t sets = 0, experts = 0, outputs[2] = {};

  Rescaler of(int matrix, int width, int expert) const {
    const std::int64_t start = ((sets > 1 ? width : 0) * experts + expert) * outputs[matrix];
    return {bias[matrix] + start, multiplier[matrix] + start, shift[matrix] + start};
  }
};

using Blocks = std::vector<const std::uint8_t*>;  // of one expert, by level

// One expert's tokens of one width. `sums` and `hidden` keep what is computed from call to call (the residual format,
// which only computes when all levels are there, has no use for `sums`).
struct Group {
  const std::int8_t* x = nullptr;  // [rows, embed_dim]
  std::int64_t rows = 0;
  const std::uint16_t* gates = nullptr;  // [rows]
  std::int32_t* sums = nullptr;          // [rows, outputs of the first matrix]
  std::int8_t* hidden = nullptr;         // [rows, hidden]
  std::int16_t* out = nullptr;           // [rows, embed_dim]: contributions
};

class Mixture {
 public:
  Mixture(MixtureShape shape, Variant variant, std::shared_ptr<Pool> pool);

  std::int64_t first_panels() const;
  std::int64_t second_panels() const;
  // Adds levels first .. last - 1 of some panels of the first matrix to the sums. `blocks`: of all levels from 0.
  // `closing`: these are the last ones that this width reads.
  void add(const Group& group, const Blocks& blocks, int first, int last, bool closing, PanelRange panels);
  // What the second matrix is given, of the sums of all `levels` levels.
  void activate(const Group& group, const Blocks& blocks, int levels, const Rescaler& fc1);
  // The contributions of some panels of the second matrix, of which all `levels` levels are here.
  void contribute(const Group& group, const Blocks& blocks, int levels, const Rescaler& fc2, PanelRange panels);

  // Whether a block's multipliers are within the limit, and its zeros in 0 .. 3 times that: what sums and rescaling are
  // exact for.
  bool sound(int level, const std::uint8_t* block) const;

  const MixtureShape& shape() const { return shape_; }

 private:
  struct Matrix {
    std::int64_t outputs, inputs;
    MatrixPlace MixtureLevel::* place;
  };
  // Sums of the panels' outputs over levels first .. last - 1, added to those of the levels below.
  template <typename Sum>
  void product(const Matrix& matrix, const std::int8_t* x, std::int64_t rows, const Blocks& blocks, int first, int last,
               int offset, PanelRange panels, Sum* sums);
  template <typename Sum>
  void soften(const Group& group, const Rescaler& fc1, const Sum* sums);
  template <typename Sum>
  void weigh(const Group& group, const Blocks& blocks, int levels, const Rescaler& fc2, PanelRange panels,
             std::vector<Sum>& sums);
  int offset_of(int levels) const;
  std::int64_t whole(std::int64_t outputs) const;

  MixtureShape shape_;
  Variant variant_;
  std::shared_ptr<Pool> pool_;
  Matrix first_, second_;
  std::vector<std::int32_t> narrow_;
  std::vector<std::int64_t> wide_;
  std::vector<std::uint8_t> cells_;
};

// y[t] = residual[t] plus the contributions of token t in the order they are listed, each sum saturated to int16.
// Token t's are rows[starts[t]] .. rows[starts[t + 1] - 1] of `contributions` [pairs, columns].
void combine(const std::int16_t* residual, const std::int16_t* contributions, const std::int64_t* rows,
             const std::int64_t* starts, std::int64_t tokens, std::int64_t columns, std::int16_t* y);

}  // namespace codesign
