// SPDX-License-Identifier: Apache-2.0
#include "plan_steps.hpp"

#include <algorithm>
#include <cstring>

namespace codesign {

void LinearStep::prepare(Plan& plan) {
  plan.need(layer_->inputs(), plan.at(x_).rows);
}

void LinearStep::run(Plan& plan) {
  const Tensor &x = plan.at(x_), &y = plan.at(y_);
  Linear l = layer_->linear();
  l.x = x.as<std::int8_t>();
  l.x_stride = x.stride();
  l.store = tail_.store;
  l.gelu = &tail_.gelu;
  l.y_stride = y.stride();
  l.y = y.data + tail_.row_offset * y.stride() * y.element_bytes();
  if (tail_.store == Store::add) {
    const Tensor& a = plan.at(tail_.residual);
    l.residual_stride = a.stride();
    l.residual = a.as<std::int16_t>() + tail_.row_offset * a.stride();
    std::memcpy(y.data, a.data, tail_.row_offset * a.stride() * a.element_bytes());
  }
  const Kernels& kernels = plan.kernels();
  const Range rows{0, x.rows};
  const int panels = l.weights.panels(), threads = plan.threads();
  if (threads == 1 || panels >= 4 * threads) {  // then every thread reads its own weights only
    const int each = static_cast<int>(round_up((panels + threads - 1) / threads, 2));
    plan.parallel((panels + each - 1) / each, [&](int index, int thread) {
      kernels.linear(l, rows, {index * each, std::min(panels, (index + 1) * each)}, plan.scratch(thread));
    });
  } else {
    plan.by_rows(x.rows, [&](Range some, int thread) { kernels.linear(l, some, {0, panels}, plan.scratch(thread)); });
  }
}

void GeluStep::run(Plan& plan) {
  const Tensor &u = plan.at(u_), &y = plan.at(y_);
  plan.by_rows(u.rows, [&](Range rows, int) {
    for (int r = rows.begin; r < rows.end; ++r) {
      plan.kernels().gelu(gelu_, u.as<std::int16_t>() + r * u.stride(), y.as<std::int8_t>() + r * y.stride(),
                          u.columns);
    }
  });
}

void AddStep::run(Plan& plan) {
  const Tensor &a = plan.at(a_), &b = plan.at(b_), &y = plan.at(y_);
  plan.by_rows(a.rows, [&](Range rows, int) {
    for (int r = rows.begin; r < rows.end; ++r) {
      const std::int16_t* from = a.as<std::int16_t>() + r * a.stride();
      std::int16_t* to = y.as<std::int16_t>() + r * y.stride();
      if (r < row_offset_) {
        std::memcpy(to, from, sizeof(std::int16_t) * a.columns);
      } else {
        plan.kernels().add(from, b.as<std::int16_t>() + (r - row_offset_) * b.stride(), to, a.columns);
      }
    }
  });
}

NormStep::NormStep(const std::vector<std::int16_t>& gain, const std::vector<std::int32_t>& bias, int shift, int x,
                   int y)
    : shift_(shift), x_(x), y_(y) {
  const int dim = static_cast<int>(gain.size());
  const std::size_t padded = round_up(dim, 64);
  gain_ = Buffer(sizeof(std::int16_t) * padded);
  gain_packed_ = Buffer(sizeof(std::int16_t) * padded);
  bias_ = Buffer(sizeof(std::int64_t) * padded);
  bias_narrow_ = Buffer(sizeof(std::int32_t) * padded);
  for (int i = 0; i < dim; ++i) {
    // Two vectors of 16 go through vpackssdw: per 128-bit lane 4 columns of the first, then 4 of the second.
    const int vector = i / 16 % 2, lane = i % 16 / 4;
    const int place = i / 32 * 32 + lane * 8 + vector * 4 + i % 4;
    gain_.as<std::int16_t>()[i] = gain_packed_.as<std::int16_t>()[place] = gain[i];
    const std::int64_t b = bias[i] + (std::int64_t{1} << (shift - 1));
    bias_.as<std::int64_t>()[i] = b;
    bias_narrow_.as<std::int32_t>()[i] = static_cast<std::int32_t>(b);
    const std::int64_t reach = std::abs(b) + 32768 * std::int64_t{std::abs(int{gain[i]})};
    narrow_ = narrow_ && reach < (std::int64_t{1} << 31);
  }
  narrow_ = narrow_ && shift < 32;
}

void NormStep::run(Plan& plan) {
  const Tensor &x = plan.at(x_), &y = plan.at(y_);
  const Norm norm{&plan.tables(),
                  x.as<std::int16_t>(),
                  x.stride(),
                  y.as<std::int8_t>(),
                  y.stride(),
                  x.columns,
                  shift_,
                  gain_.as<std::int16_t>(),
                  gain_packed_.as<std::int16_t>(),
                  bias_.as<std::int64_t>(),
                  bias_narrow_.as<std::int32_t>(),
                  narrow_};
  plan.by_rows(x.rows, [&](Range rows, int) { plan.kernels().norm(norm, rows); });
}

void RouteStep::prepare(Plan& plan) {
  const int rows = plan.at(x_).rows;
  plan.need(layer_->inputs(), rows);
  stride_ = static_cast<std::ptrdiff_t>(round_up(layer_->outputs(), 32));
  logits_ = Buffer(sizeof(std::int16_t) * stride_ * rows);
}

void RouteStep::run(Plan& plan) {
  const Tensor &x = plan.at(x_), &gates = plan.at(gates_);
  Linear l = layer_->linear();
  l.x = x.as<std::int8_t>();
  l.x_stride = x.stride();
  l.store = Store::int16;
  l.y = logits_.as<std::int16_t>();
  l.y_stride = stride_;
  const Route route{&plan.tables(), logits_.as<std::int16_t>(), stride_, gates.as<std::uint16_t>(),
                    gates.stride(), layer_->outputs(),          top_k_};
  plan.by_rows(x.rows, [&](Range rows, int thread) {
    plan.kernels().linear(l, rows, {0, l.weights.panels()}, plan.scratch(thread));
    plan.kernels().route(route, rows);
  });
}

}  // namespace codesign
