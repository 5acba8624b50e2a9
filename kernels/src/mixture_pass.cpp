// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cstring>
#include <utility>

#include "codesign/layer_pass.hpp"

namespace codesign {
namespace {

template <typename T>
void grow(std::vector<T>& values, std::int64_t size) {
  if (static_cast<std::int64_t>(values.size()) < size)
    values.resize(static_cast<std::size_t>(size));
}

}  // namespace

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
      parts_.push_back({.levels = static_cast<int>(levels - v),
                        .begin = static_cast<std::int64_t>(begin),
                        .rows = static_cast<std::int64_t>(starts[one + 1] - begin)});
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

LayerPass::Room LayerPass::borrow() {
  if (spare_.empty())
    return {};
  Room found = std::move(spare_.back());
  spare_.pop_back();
  return found;
}

Group LayerPass::group_of(Part& part) {
  const MixtureShape& shape = layer_->mixture.shape();
  const std::int64_t columns = shape.embed_dim;
  std::int8_t* const rows = x_.data() + part.begin * columns;  // of one token they are the batch's
  if (part.room.hidden.empty()) {
    for (std::int64_t i = 0; batch_.tokens > 1 && i < part.rows; ++i) {
      const std::int8_t* const row = batch_.x + tokens_[static_cast<std::size_t>(part.begin + i)] * columns;
      std::memcpy(rows + i * columns, row, static_cast<std::size_t>(columns));
    }
    part.room = borrow();
    grow(part.room.sums, part.rows * layer_->constants.outputs[0]);
    grow(part.room.hidden, part.rows * shape.hidden);
  }
  return {batch_.tokens > 1 ? rows : batch_.x,
          part.rows,
          gates_.data() + part.begin,
          part.room.sums.data(),
          part.room.hidden.data(),
          out_.data() + part.begin * columns};
}

void LayerPass::add(Part& part, int upto, const Blocks& blocks) {
  const std::int64_t all = layer_->mixture.first_panels();
  if (part.begun > 0 && upto > part.added)
    add_begun(part, all, blocks);
  if (upto <= part.added)
    return;
  layer_->mixture.add(group_of(part), blocks, part.added, upto, upto == part.levels, {0, all});
  part.added = upto;
}

// Adds the next level up to so many panels.
void LayerPass::add_begun(Part& part, std::int64_t panels, const Blocks& blocks) {
  if (panels <= part.begun)
    return;
  const int next = part.added + 1;
  layer_->mixture.add(group_of(part), blocks, part.added, next, next == part.levels, {part.begun, panels});
  part.begun = panels;
  if (panels < layer_->mixture.first_panels())
    return;
  part.added = next;
  part.begun = 0;
}

// Computes the second matrix up to so many panels.
void LayerPass::contribute(Part& part, int expert, std::int64_t panels, const Blocks& blocks) {
  if (panels <= part.panels)
    return;
  const LayerConstants& by = layer_->constants;
  const Group group = group_of(part);
  if (part.panels == 0)
    layer_->mixture.activate(group, blocks, part.levels, by.of(0, part.levels - 1, expert));
  layer_->mixture.contribute(group, blocks, part.levels, by.of(1, part.levels - 1, expert), {part.panels, panels});
  part.panels = panels;
  if (panels == layer_->mixture.second_panels())
    spare_.push_back(std::exchange(part.room, {}));
}

void LayerPass::compute_begun(int expert, int level, std::int64_t here, const Blocks& blocks) {
  const auto e = static_cast<std::size_t>(expert), l = static_cast<std::size_t>(level);
  const Mixture& mixture = layer_->mixture;
  const MixtureLevel& places = mixture.shape().levels[l];
  const auto share = [here](std::int64_t panels, std::int64_t begin, std::int64_t end) {
    return panels * std::clamp<std::int64_t>(here - begin, 0, end - begin) / (end - begin);
  };
  const std::int64_t first = share(mixture.first_panels(), places.first.cells, layer_->halves[l]);
  const std::int64_t second = share(mixture.second_panels(), places.second.cells, layer_->sizes[l]);
  for (std::size_t i = part_of_[e]; i < part_of_[e + 1]; ++i) {
    Part& part = parts_[i];
    if (part.added == level && part.levels > level)
      add_begun(part, first, blocks);
    if (part.added == part.levels)
      contribute(part, expert, second, blocks);
  }
}

void LayerPass::compute(int expert, int last, const Blocks& blocks) {
  const auto e = static_cast<std::size_t>(expert);
  for (std::size_t i = part_of_[e]; i < part_of_[e + 1]; ++i) {
    Part& part = parts_[i];
    add(part, std::min(last + 1, part.levels), blocks);
    if (part.added == part.levels)
      contribute(part, expert, layer_->mixture.second_panels(), blocks);
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
