// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>
#include <utility>

#include "codesign/layer_pass.hpp"

namespace codesign {

void choose_widths(const std::uint16_t* gates, std::int64_t tokens, std::int64_t experts,
                   const std::vector<int>& widths, std::int64_t high, std::int64_t low, std::uint8_t* out) {
  const auto last = static_cast<std::int64_t>(widths.size()) - 1;
  for (std::int64_t t = 0; t < tokens; ++t, gates += experts, out += experts) {
    const std::int64_t largest = experts > 0 ? *std::max_element(gates, gates + experts) : 0;
    for (std::int64_t e = 0; e < experts; ++e) {
      const std::int64_t share = std::int64_t{gates[e]} << 15;
      const std::int64_t below = share >= high * largest ? 0 : share >= low * largest ? 1 : 2;
      const int width = widths[static_cast<std::size_t>(std::max<std::int64_t>(last - below, 0))];
      out[e] = gates[e] == 0 ? 0 : static_cast<std::uint8_t>(width);
    }
  }
}

int LayerPass::begin(StreamLayer& layer, const Batch& batch) {
  layer_ = &layer;
  batch_ = batch;
  const auto experts = static_cast<std::size_t>(layer.experts()), levels = static_cast<std::size_t>(layer.levels());
  std::vector<std::size_t> starts(experts * levels + 1);  // by expert, then by levels descending
  const std::size_t cells = static_cast<std::size_t>(batch.tokens) * experts;
  std::vector<std::size_t> place(cells);
  pair_bits_ = 0;
  for (std::size_t i = 0; i < cells; ++i) {
    if (batch.gates[i] == 0)
      continue;
    const auto found = std::find(layer.widths.begin(), layer.widths.end(), batch.widths[i]);
    if (found == layer.widths.end())
      return batch.widths[i] == 0 ? -1 : batch.widths[i];
    place[i] = i % experts * levels + static_cast<std::size_t>(layer.widths.end() - found - 1);
    pair_bits_ += batch.widths[i];
    ++starts[place[i] + 1];
  }
  for (std::size_t i = 1; i < starts.size(); ++i)
    starts[i] += starts[i - 1];
  tokens_.resize(starts.back());
  gates_.resize(starts.back());
  parts_.clear();
  demand_.clear();
  part_of_.assign(1, 0);
  for (std::size_t e = 0; e < experts; ++e) {
    for (std::size_t v = 0; v < levels; ++v) {
      const std::size_t one = e * levels + v, begin = starts[one];
      if (starts[one + 1] == begin)
        continue;
      parts_.push_back({static_cast<int>(levels - v),
                        static_cast<std::int64_t>(begin),
                        static_cast<std::int64_t>(starts[one + 1] - begin),
                        0,
                        false,
                        {}});
    }
    for (std::size_t v = 0; v < levels; ++v) {
      const auto readers = static_cast<std::int64_t>(starts[(e + 1) * levels - v] - starts[e * levels]);
      const int block = layer.base + static_cast<int>(v * experts + e);
      if (readers > 0)
        demand_.push_back({static_cast<int>(e), static_cast<int>(v), block, readers});
    }
    part_of_.push_back(parts_.size());
  }
  for (std::size_t i = 0; i < cells; ++i) {
    if (batch.gates[i] == 0)
      continue;
    const std::size_t pair = starts[place[i]]++;
    tokens_[pair] = static_cast<std::int64_t>(i / experts);
    gates_[pair] = batch.gates[i];
  }
  const auto columns = static_cast<std::size_t>(layer.mixture.shape().embed_dim);
  x_.resize(batch.tokens > 1 ? tokens_.size() * columns : 0);
  out_.resize(tokens_.size() * columns);
  return 0;
}

LayerPass::Sums LayerPass::borrow(std::int64_t size) {
  Sums found;
  if (!spare_.empty()) {
    found = std::move(spare_.back());
    spare_.pop_back();
  }
  if (found.size < size) {
    found.values = std::make_unique_for_overwrite<std::int32_t[]>(static_cast<std::size_t>(size));
    found.size = size;
  }
  return found;
}

Group LayerPass::group_of(Part& part) {
  const std::int64_t columns = layer_->mixture.shape().embed_dim;
  Group group;
  group.rows = part.rows;
  group.gates = gates_.data() + part.begin;
  group.out = out_.data() + part.begin * columns;
  group.x = batch_.x;
  if (batch_.tokens > 1) {
    std::int8_t* const rows = x_.data() + part.begin * columns;
    group.x = rows;
    for (std::int64_t i = 0; i < part.rows && part.sums.size == 0; ++i) {
      const std::int8_t* const row = batch_.x + tokens_[static_cast<std::size_t>(part.begin + i)] * columns;
      std::memcpy(rows + i * columns, row, static_cast<std::size_t>(columns));
    }
  }
  if (part.sums.size == 0)
    part.sums = borrow(std::max<std::int64_t>(1, part.rows * layer_->constants.outputs[0]));
  group.sums = part.sums.values.get();
  return group;
}

void LayerPass::add(Part& part, int upto, const Blocks& blocks) {
  if (part.done || upto <= part.added)
    return;
  layer_->mixture.add(group_of(part), blocks, part.added, upto, upto == part.levels);
  part.added = upto;
}

void LayerPass::compute_first(int expert, int level, const Blocks& blocks) {
  const auto e = static_cast<std::size_t>(expert);
  for (std::size_t i = part_of_[e]; i < part_of_[e + 1]; ++i) {
    add(parts_[i], std::min(level + 1, parts_[i].levels), blocks);
  }
}

void LayerPass::compute(int expert, int last, const Blocks& blocks) {
  const auto e = static_cast<std::size_t>(expert);
  for (std::size_t i = part_of_[e]; i < part_of_[e + 1]; ++i) {
    Part& part = parts_[i];
    const int levels = part.levels;
    if (part.done)
      continue;
    add(part, std::min(last + 1, levels), blocks);
    if (part.added < levels)
      continue;
    const LayerConstants& by = layer_->constants;
    layer_->mixture.finish(group_of(part), blocks, levels, by.of(0, levels - 1, expert), by.of(1, levels - 1, expert));
    part.done = true;
    spare_.push_back(std::exchange(part.sums, {}));
  }
}

void LayerPass::result(std::int16_t* y) {
  std::vector<std::int64_t> starts(static_cast<std::size_t>(batch_.tokens) + 1), rows(tokens_.size());
  for (const std::int64_t token : tokens_)
    ++starts[static_cast<std::size_t>(token) + 1];
  for (std::size_t t = 1; t < starts.size(); ++t)
    starts[t] += starts[t - 1];
  std::vector<std::int64_t> next(starts.begin(), starts.end() - 1);
  for (std::size_t i = 0; i < tokens_.size(); ++i) {  // pairs ascend by expert, and so do each token's
    rows[static_cast<std::size_t>(next[static_cast<std::size_t>(tokens_[i])]++)] = static_cast<std::int64_t>(i);
  }
  combine(batch_.residual, out_.data(), rows.data(), starts.data(), batch_.tokens, layer_->mixture.shape().embed_dim,
          y);
}

}  // namespace codesign
