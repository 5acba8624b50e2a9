// SPDX-License-Identifier: Apache-2.0
#include "codesign/plan.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "plan_steps.hpp"

namespace codesign {

Plan::Plan(Variant variant, int threads, std::shared_ptr<const Tables> tables)
    : kernels_(codesign::kernels(variant)), tables_(std::move(tables)), pool_(threads) {}

int Plan::tensor(int rows, int columns, Element element, int slot) {
  tensors_.push_back({rows, columns, element, slot, nullptr});
  return static_cast<int>(tensors_.size()) - 1;
}

void Plan::linear(std::shared_ptr<const Dense> layer, int x, int y) {
  const Store store = at(y).element == Element::int8 ? Store::int8 : Store::int16;
  append(std::make_unique<LinearStep>(std::move(layer), x, y, LinearStep::Tail{store, {}, -1, 0}));
}

void Plan::linear_gelu(std::shared_ptr<const Dense> layer, Requantization gelu, int x, int y) {
  const Gelu table = tables_->gelu(gelu.multiplier, gelu.shift);
  append(std::make_unique<LinearStep>(std::move(layer), x, y, LinearStep::Tail{Store::gelu, table, -1, 0}));
}

void Plan::linear_add(std::shared_ptr<const Dense> layer, int x, int residual, int y, int row_offset) {
  append(std::make_unique<LinearStep>(std::move(layer), x, y, LinearStep::Tail{Store::add, {}, residual, row_offset}));
}

void Plan::gelu(Requantization gelu, int u, int y) {
  append(std::make_unique<GeluStep>(tables_->gelu(gelu.multiplier, gelu.shift), u, y));
}

void Plan::add(int a, int b, int y, int row_offset) {
  append(std::make_unique<AddStep>(a, b, y, row_offset));
}

void Plan::norm(std::vector<std::int16_t> gain, std::vector<std::int32_t> bias, int shift, int x, int y) {
  append(std::make_unique<NormStep>(gain, bias, shift, x, y));
}

void Plan::attention(int heads, int head_dim, Requantization score, Requantization out, int q, int k, int v, int y) {
  append(std::make_unique<AttentionStep>(heads, head_dim, score, out, q, k, v, y));
}

void Plan::route(std::shared_ptr<const Dense> layer, int top_k, int x, int gates) {
  append(std::make_unique<RouteStep>(std::move(layer), top_k, x, gates));
}

void Plan::experts(std::vector<std::shared_ptr<const Dense>> fc1, Requantization gelu,
                   std::vector<std::shared_ptr<const Dense>> fc2, int most_active, int x, int gates, int residual,
                   int y) {
  const Gelu table = tables_->gelu(gelu.multiplier, gelu.shift);
  append(std::make_unique<ExpertsStep>(std::move(fc1), table, std::move(fc2), most_active, x, gates, residual, y));
}

void Plan::need(int inputs, int rows) {
  most_inputs_ = std::max(most_inputs_, inputs);
  most_rows_ = std::max(most_rows_, rows);
}

void Plan::finish() {
  std::vector<std::size_t> sizes;
  for (const Tensor& tensor : tensors_) {
    sizes.resize(std::max(sizes.size(), static_cast<std::size_t>(tensor.slot) + 1));
    sizes[tensor.slot] = std::max(sizes[tensor.slot], tensor.bytes());
  }
  for (const std::size_t size : sizes) {
    slots_.emplace_back(size);
  }
  for (Tensor& tensor : tensors_) {
    tensor.data = slots_[tensor.slot].as<std::byte>();
  }
  for (const auto& step : steps_) {
    step->prepare(*this);
  }
  for (int i = 0; i < threads(); ++i) {
    scratch_.emplace_back(most_inputs_, most_rows_);
  }
}

void Plan::write(int index, const void* rows) {
  const Tensor& tensor = at(index);
  const std::size_t width = static_cast<std::size_t>(tensor.columns) * tensor.element_bytes();
  for (int r = 0; r < tensor.rows; ++r) {
    std::memcpy(tensor.data + r * tensor.stride() * tensor.element_bytes(),
                static_cast<const std::byte*>(rows) + r * width, width);
  }
}

void Plan::read(int index, void* rows) const {
  const Tensor& tensor = at(index);
  const std::size_t width = static_cast<std::size_t>(tensor.columns) * tensor.element_bytes();
  for (int r = 0; r < tensor.rows; ++r) {
    std::memcpy(static_cast<std::byte*>(rows) + r * width, tensor.data + r * tensor.stride() * tensor.element_bytes(),
                width);
  }
}

void Plan::run() {
  kernels_.enter();
  for (const auto& step : steps_) {
    step->run(*this);
  }
  kernels_.leave();
}

}  // namespace codesign
