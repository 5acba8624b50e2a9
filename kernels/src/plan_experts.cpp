// SPDX-License-Identifier: Apache-2.0
// EXPERTS: a queue of tokens for each expert; each queue through its expert; then, token by token, the gated outputs
// are added in ascending order of the experts, because the additions saturate.
#include <algorithm>
#include <cstring>

#include "plan_steps.hpp"

namespace codesign {

void ExpertsStep::prepare(Plan& plan) {
  const Tensor &x = plan.at(x_), &y = plan.at(y_);
  const int hidden = fc1_.front()->outputs(), experts = static_cast<int>(fc1_.size());
  plan.need(std::max(x.columns, hidden), kRows);
  const std::size_t most = static_cast<std::size_t>(x.rows) * most_active_;
  pairs_.reserve(most);
  chunks_.reserve(most / kRows + experts);
  queues_.resize(experts);
  for (auto& queue : queues_) {
    queue.reserve(x.rows);
  }
  outputs_ = Buffer(sizeof(std::int16_t) * most * y.stride());
  for (int i = 0; i < plan.threads(); ++i) {
    locals_.push_back({Buffer(kRows * x.stride()), Buffer(kRows * round_up(hidden, kBlockInputs))});
  }
}

void ExpertsStep::queue(const Plan& plan) {
  const Tensor& gates = plan.at(gates_);
  for (auto& queue : queues_) {
    queue.clear();
  }
  for (int t = 0; t < gates.rows; ++t) {
    const std::uint16_t* row = gates.as<std::uint16_t>() + t * gates.stride();
    for (int e = 0; e < gates.columns; ++e) {
      if (row[e] != 0) {
        queues_[e].push_back({t, row[e]});
      }
    }
  }
  pairs_.clear();
  chunks_.clear();
  for (int e = 0; e < gates.columns; ++e) {
    const int begin = static_cast<int>(pairs_.size());
    pairs_.insert(pairs_.end(), queues_[e].begin(), queues_[e].end());
    const int end = static_cast<int>(pairs_.size());
    for (int first = begin; first < end; first += kRows) {
      chunks_.push_back({e, {first, std::min(end, first + kRows)}});
    }
  }
}

void ExpertsStep::compute(const Plan& plan, const Chunk& chunk, int thread) {
  const Tensor &x = plan.at(x_), &y = plan.at(y_);
  const Local& local = locals_[thread];
  const int count = chunk.pairs.end - chunk.pairs.begin;
  for (int i = 0; i < count; ++i) {
    std::memcpy(local.x.as<std::int8_t>() + i * x.stride(),
                x.as<std::int8_t>() + pairs_[chunk.pairs.begin + i].token * x.stride(), x.stride());
  }
  Linear first = fc1_[chunk.expert]->linear();
  first.x = local.x.as<std::int8_t>();
  first.x_stride = x.stride();
  first.store = Store::gelu;
  first.gelu = &gelu_;
  first.y = local.hidden.as<std::int8_t>();
  first.y_stride = static_cast<std::ptrdiff_t>(round_up(first.weights.outputs, kBlockInputs));
  plan.kernels().linear(first, {0, count}, {0, first.weights.panels()}, plan.scratch(thread));

  Linear second = fc2_[chunk.expert]->linear();
  second.x = local.hidden.as<std::int8_t>();
  second.x_stride = first.y_stride;
  second.store = Store::int16;
  second.y = outputs_.as<std::int16_t>() + chunk.pairs.begin * y.stride();
  second.y_stride = y.stride();
  plan.kernels().linear(second, {0, count}, {0, second.weights.panels()}, plan.scratch(thread));
}

void ExpertsStep::combine(const Plan& plan, Range rows) {
  const Tensor &residual = plan.at(residual_), &y = plan.at(y_);
  const std::ptrdiff_t stride = y.stride();
  std::memcpy(y.as<std::int16_t>() + rows.begin * stride, residual.as<std::int16_t>() + rows.begin * stride,
              sizeof(std::int16_t) * stride * (rows.end - rows.begin));
  for (std::size_t i = 0; i < pairs_.size(); ++i) {
    const Pair& pair = pairs_[i];
    if (pair.token >= rows.begin && pair.token < rows.end) {
      plan.kernels().gated_add(y.as<std::int16_t>() + pair.token * stride, outputs_.as<std::int16_t>() + i * stride,
                               pair.gate, y.columns);
    }
  }
}

void ExpertsStep::run(Plan& plan) {
  queue(plan);
  plan.parallel(static_cast<int>(chunks_.size()),
                [&](int index, int thread) { compute(plan, chunks_[index], thread); });
  plan.by_rows(plan.at(x_).rows, [&](Range rows, int) { combine(plan, rows); });
}

}  // namespace codesign
