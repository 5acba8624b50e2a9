// SPDX-License-Identifier: Apache-2.0
// One batch of tokens through one mixture layer, block by block, in any order (docs/edge.md, section 5).
//
// Per expert, the tokens of one width form a group. A level that arrives is added to the first matrix's sums of every
// group that reads it; a group's last level completes it. Contributions are added in ascending order of experts at the
// end, so the bits depend on no order of arrival.
#pragma once

#include <cstdint>
#include <vector>

#include "codesign/mixture.hpp"
#include "codesign/schedule.hpp"

namespace codesign {

// A layer of a store, ready to compute. Its blocks are numbered base + level * experts + expert.
struct StreamLayer {
  Mixture mixture;
  LayerConstants constants;
  std::vector<int> widths;           // bits a weight after 1, 2, ... levels
  std::vector<std::int64_t> sizes;   // bytes of a block, by level
  std::vector<std::int64_t> halves;  // bytes from its begin on that hold the first matrix
  int base = 0;

  int experts() const { return static_cast<int>(constants.experts); }
  int levels() const { return static_cast<int>(widths.size()); }
};

struct Batch {
  std::int64_t tokens = 0;
  const std::int8_t* x = nullptr;          // [tokens, embed_dim]
  const std::uint16_t* gates = nullptr;    // [tokens, experts]; 0: not used
  const std::uint8_t* widths = nullptr;    // [tokens, experts], read where the gate is not 0
  const std::int16_t* residual = nullptr;  // [tokens, embed_dim]
};

// The width of each pair of token and expert [tokens, experts] by its gate's share in the token's largest one: the last
// of `widths` from `high` (in units of 2^-15), the one before it from `low`, else the one before that (or the first);
// 0 where the gate is 0. codesign/spec/moe.py, WidthPolicy.
void choose_widths(const std::uint16_t* gates, std::int64_t tokens, std::int64_t experts,
                   const std::vector<int>& widths, std::int64_t high, std::int64_t low, std::uint8_t* out);

class LayerPass {
 public:
  // Sorts the tokens by expert and width. Returns 0, or the first width that the layer's format does not have.
  int begin(StreamLayer& layer, const Batch& batch);

  const std::vector<Demand>& demand() const { return demand_; }  // expert by expert, level by level
  std::int64_t pairs() const { return static_cast<std::int64_t>(tokens_.size()); }
  std::int64_t pair_bits() const { return pair_bits_; }  // sum of the pairs' widths

  // Uses `here` bytes from the begin on of the block of an expert's level, of which all lower ones were computed.
  void compute_begun(int expert, int level, std::int64_t here, const Blocks& blocks);
  // Uses an expert's blocks up to level `last`.
  void compute(int expert, int last, const Blocks& blocks);
  // The layer's output [tokens, embed_dim], when everything was computed.
  void result(std::int16_t* y);

 private:
  struct Room {
    std::vector<std::int32_t> sums;
    std::vector<std::int8_t> hidden;
  };
  struct Part {
    int levels;
    std::int64_t begin, rows;  // among the pairs
    int added = 0;             // levels in the sums,
    std::int64_t begun = 0;    // and panels of the one behind them
    std::int64_t panels = 0;   // of the second matrix that were computed
    Room room{};               // from when it is gathered to when all is computed
  };
  Group group_of(Part& part);
  Room borrow();
  void add(Part& part, int upto, const Blocks& blocks);
  void add_begun(Part& part, std::int64_t panels, const Blocks& blocks);
  void contribute(Part& part, int expert, std::int64_t panels, const Blocks& blocks);

  StreamLayer* layer_ = nullptr;
  Batch batch_;
  std::vector<Demand> demand_;
  std::vector<std::int64_t> tokens_;  // of each pair; pairs by expert, then widest first, then token
  std::vector<std::uint16_t> gates_;
  std::vector<Part> parts_;
  std::vector<std::size_t> part_of_;  // of each expert the first, and behind the last
  std::vector<std::int8_t> x_;        // rows of the pairs
  std::vector<std::int16_t> out_;     // contributions
  std::vector<Room> spare_;
  std::int64_t pair_bits_ = 0;
};

}  // namespace codesign
