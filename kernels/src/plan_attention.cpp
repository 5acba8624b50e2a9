// SPDX-License-Identifier: Apache-2.0
// ATTENTION: per head, keys and values are packed as weights are; then blocks of queries go through two products.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "plan_steps.hpp"

namespace codesign {
namespace {

constexpr int kQueries = 32;

}  // namespace

void AttentionStep::prepare(Plan& plan) {
  const int tokens = plan.at(k_).rows;
  plan.need(std::max(tokens, head_dim_), std::max(plan.at(q_).rows, kQueries));
  const bool is_signed = plan.kernels().signed_cells;
  keys_ = {nullptr, 8, is_signed ? 0 : 128, tokens, head_dim_};
  values_ = {nullptr, 8, is_signed ? 0 : 128, head_dim_, tokens};
  packed_keys_ = Buffer(keys_.panel_bytes() * keys_.panels() * heads_);
  packed_values_ = Buffer(values_.panel_bytes() * values_.panels() * heads_);
  std::memset(packed_keys_.as<std::uint8_t>(), keys_.offset, packed_keys_.bytes());
  std::memset(packed_values_.as<std::uint8_t>(), values_.offset, packed_values_.bytes());
  const std::size_t padded = round_up(std::max(tokens, head_dim_), kPanelOutputs);
  zeros_ = Buffer(sizeof(std::int32_t) * padded);
  wide_ = Buffer(sizeof(double) * padded);
  single_ = Buffer(sizeof(float) * padded);
  const double factor = std::ldexp(score_.multiplier, -score_.shift);
  std::fill_n(wide_.as<double>(), padded, factor);
  std::fill_n(single_.as<float>(), padded, static_cast<float>(factor));
  narrow_ = fits_single(16384.0 * head_dim_, factor);
  for (int i = 0; i < plan.threads(); ++i) {
    locals_.push_back({Buffer(sizeof(std::int16_t) * kQueries * round_up(tokens, kBlockInputs)),
                       Buffer(kQueries * round_up(tokens, kBlockInputs)),
                       Buffer(sizeof(std::int32_t) * kQueries * round_up(head_dim_, kPanelOutputs))});
  }
}

void AttentionStep::pack(const Plan& plan, int head) {
  const Tensor &k = plan.at(k_), &v = plan.at(v_);
  const Kernels& kernels = plan.kernels();
  const auto of = [&](const Tensor& t) {
    return Head{t.as<std::int8_t>() + head * head_dim_, t.stride(), t.rows, head_dim_};
  };
  kernels.pack_keys(of(k), packed_keys_.as<std::uint8_t>() + keys_.panel_bytes() * keys_.panels() * head,
                    kernels.signed_cells);
  kernels.pack_values(of(v), packed_values_.as<std::uint8_t>() + values_.panel_bytes() * values_.panels() * head,
                      kernels.signed_cells);
}

void AttentionStep::block(const Plan& plan, int head, Range rows, int thread) {
  const Tensor &q = plan.at(q_), &y = plan.at(y_);
  const Kernels& kernels = plan.kernels();
  const Local& local = locals_[thread];
  const int tokens = keys_.outputs, count = rows.end - rows.begin;
  const std::ptrdiff_t wide = round_up(tokens, kBlockInputs), deep = round_up(head_dim_, kPanelOutputs);

  Linear scores;
  scores.x = q.as<std::int8_t>() + rows.begin * q.stride() + head * head_dim_;
  scores.x_stride = q.stride();
  scores.weights = keys_;
  scores.weights.cells = packed_keys_.as<std::uint8_t>() + keys_.panel_bytes() * keys_.panels() * head;
  scores.bias = zeros_.as<std::int32_t>();
  scores.store = Store::int16;
  scores.rescale = {wide_.as<double>(), single_.as<float>(), narrow_};
  scores.y = local.scores.as<std::int16_t>();
  scores.y_stride = wide;
  kernels.linear(scores, {0, count}, {0, keys_.panels()}, plan.scratch(thread));

  std::int64_t totals[kQueries];
  for (int r = 0; r < count; ++r) {
    totals[r] = kernels.probabilities(plan.tables(), local.scores.as<std::int16_t>() + r * wide,
                                      local.probabilities.as<std::uint8_t>() + r * wide, tokens);
  }

  Linear mixed;
  mixed.x = local.probabilities.as<std::int8_t>();
  mixed.x_stride = wide;
  mixed.weights = values_;
  mixed.weights.cells = packed_values_.as<std::uint8_t>() + values_.panel_bytes() * values_.panels() * head;
  mixed.bias = zeros_.as<std::int32_t>();
  mixed.store = Store::sums;
  mixed.y = local.sums.as<std::int32_t>();
  mixed.y_stride = deep;
  kernels.linear(mixed, {0, count}, {0, values_.panels()}, plan.scratch(thread));

  const Mix mix{&plan.tables(), std::ldexp(out_.multiplier, -out_.shift)};
  std::int8_t* to = y.as<std::int8_t>() + rows.begin * y.stride() + head * head_dim_;
  for (int r = 0; r < count; ++r) {
    kernels.mix(mix, local.sums.as<std::int32_t>() + r * deep, totals[r], to + r * y.stride(), head_dim_);
  }
}

void AttentionStep::run(Plan& plan) {
  const int rows = plan.at(q_).rows, blocks = (rows + kQueries - 1) / kQueries;
  plan.parallel(heads_, [&](int head, int) { pack(plan, head); });
  plan.parallel(heads_ * blocks, [&](int index, int thread) {
    const int first = index % blocks * kQueries;
    block(plan, index / blocks, {first, std::min(rows, first + kQueries)}, thread);
  });
}

}  // namespace codesign
