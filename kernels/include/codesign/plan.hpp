// SPDX-License-Identifier: Apache-2.0
// A graph made ready: weights packed, memory allocated, operators in order. Running it allocates nothing.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "codesign/operators.hpp"

namespace codesign {

enum class Element { int8, int16, uint16 };

// A matrix in memory: rows to a multiple of 16, columns to a multiple of 64.
struct Tensor {
  int rows = 0;
  int columns = 0;
  Element element = Element::int8;
  int slot = 0;
  std::byte* data = nullptr;

  int element_bytes() const { return element == Element::int8 ? 1 : 2; }
  std::ptrdiff_t stride() const { return static_cast<std::ptrdiff_t>(round_up(columns, kBlockInputs)); }
  std::size_t bytes() const { return round_up(rows, kRowMultiple) * stride() * element_bytes(); }
  template <typename T>
  T* as() const {
    return reinterpret_cast<T*>(data);
  }
};

class Plan;

// One operator, or several that were fused.
class Step {
 public:
  virtual ~Step() = default;
  // Sizes are known: allocates what the step needs of its own, and says the most inputs and rows of its products.
  virtual void prepare(Plan& plan) = 0;
  virtual void run(Plan& plan) = 0;
};

struct Requantization {
  int multiplier;
  int shift;
};

class Plan {
 public:
  Plan(Variant variant, int threads, std::shared_ptr<const Tables> tables);

  // -- building: all of it before finish() -------------------------------------------------------------------------
  // A tensor, named by its number. Tensors of one slot share memory: never two at a time that are needed.
  int tensor(int rows, int columns, Element element, int slot);
  // y = layer(x); int8 or int16 as y is
  void linear(std::shared_ptr<const Dense> layer, int x, int y);
  void linear_gelu(std::shared_ptr<const Dense> layer, Requantization gelu, int x, int y);
  // y = residual; y[row_offset:] = sat16(y[row_offset:] + layer(x))
  void linear_add(std::shared_ptr<const Dense> layer, int x, int residual, int y, int row_offset);
  void gelu(Requantization gelu, int u, int y);
  void add(int a, int b, int y, int row_offset);
  void norm(std::vector<std::int16_t> gain, std::vector<std::int32_t> bias, int shift, int x, int y);
  void attention(int heads, int head_dim, Requantization score, Requantization out, int q, int k, int v, int y);
  void route(std::shared_ptr<const Dense> layer, int top_k, int x, int gates);
  // At most `most_active` experts a token have a gate above 0.
  void experts(std::vector<std::shared_ptr<const Dense>> fc1, Requantization gelu,
               std::vector<std::shared_ptr<const Dense>> fc2, int most_active, int x, int gates, int residual, int y);
  void finish();

  // -- running -----------------------------------------------------------------------------------------------------
  void write(int tensor, const void* rows);  // without padding
  void read(int tensor, void* rows) const;
  void run();

  // -- for steps ---------------------------------------------------------------------------------------------------
  const Tensor& at(int tensor) const { return tensors_[tensor]; }
  const Kernels& kernels() const { return kernels_; }
  const Tables& tables() const { return *tables_; }
  const Scratch& scratch(int thread) const { return scratch_[thread]; }
  int threads() const { return pool_.threads(); }
  void need(int inputs, int rows);
  // task(index, thread) on the pool, between `enter` and `leave`
  template <typename Task>
  void parallel(int tasks, Task&& task) {
    pool_.run(tasks, [&](int index, int thread) {
      if (thread != 0) {
        kernels_.enter();
      }
      task(index, thread);
      if (thread != 0) {
        kernels_.leave();
      }
    });
  }
  // task(rows, thread) for ranges of rows that begin at a multiple of 16
  template <typename Task>
  void by_rows(int rows, Task&& task) {
    const int each = static_cast<int>(round_up((rows + threads() - 1) / threads(), kRowMultiple));
    parallel((rows + each - 1) / each,
             [&](int index, int thread) { task(Range{index * each, std::min(rows, (index + 1) * each)}, thread); });
  }

 private:
  void append(std::unique_ptr<Step> step) { steps_.push_back(std::move(step)); }

  const Kernels& kernels_;
  std::shared_ptr<const Tables> tables_;
  Pool pool_;
  std::vector<Tensor> tensors_;
  std::vector<std::unique_ptr<Step>> steps_;
  std::vector<Buffer> slots_;
  std::vector<Scratch> scratch_;
  int most_inputs_ = 1, most_rows_ = 1;
};

}  // namespace codesign
