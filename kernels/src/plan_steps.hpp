// SPDX-License-Identifier: Apache-2.0
// The steps of a plan, one class an operator. Numbers name tensors of the plan.
#pragma once

#include "codesign/plan.hpp"

namespace codesign {

class LinearStep final : public Step {
 public:
  struct Tail {  // what is fused behind the layer
    Store store;
    Gelu gelu;
    int residual;
    int row_offset;
  };
  LinearStep(std::shared_ptr<const Dense> layer, int x, int y, const Tail& tail)
      : layer_(std::move(layer)), tail_(tail), x_(x), y_(y) {}
  void prepare(Plan& plan) override;
  void run(Plan& plan) override;

 private:
  std::shared_ptr<const Dense> layer_;
  Tail tail_;
  int x_, y_;
};

class GeluStep final : public Step {
 public:
  GeluStep(const Gelu& gelu, int u, int y) : gelu_(gelu), u_(u), y_(y) {}
  void prepare(Plan&) override {}
  void run(Plan& plan) override;

 private:
  Gelu gelu_;
  int u_, y_;
};

class AddStep final : public Step {
 public:
  AddStep(int a, int b, int y, int row_offset) : a_(a), b_(b), y_(y), row_offset_(row_offset) {}
  void prepare(Plan&) override {}
  void run(Plan& plan) override;

 private:
  int a_, b_, y_, row_offset_;
};

class NormStep final : public Step {
 public:
  NormStep(const std::vector<std::int16_t>& gain, const std::vector<std::int32_t>& bias, int shift, int x, int y);
  void prepare(Plan&) override {}
  void run(Plan& plan) override;

 private:
  Buffer gain_, gain_packed_, bias_, bias_narrow_;
  bool narrow_ = true;
  int shift_, x_, y_;
};

class AttentionStep final : public Step {
 public:
  AttentionStep(int heads, int head_dim, Requantization score, Requantization out, int q, int k, int v, int y)
      : heads_(heads), head_dim_(head_dim), score_(score), out_(out), q_(q), k_(k), v_(v), y_(y) {}
  void prepare(Plan& plan) override;
  void run(Plan& plan) override;

 private:
  struct Local {  // of one thread
    Buffer scores, probabilities, sums;
  };
  void pack(const Plan& plan, int head);
  void block(const Plan& plan, int head, Range rows, int thread);

  int heads_, head_dim_;
  Requantization score_, out_;
  int q_, k_, v_, y_;
  Weights keys_, values_;
  Buffer packed_keys_, packed_values_, zeros_, wide_, single_;
  bool narrow_ = false;
  std::vector<Local> locals_;
};

class RouteStep final : public Step {
 public:
  RouteStep(std::shared_ptr<const Dense> layer, int top_k, int x, int gates)
      : layer_(std::move(layer)), top_k_(top_k), x_(x), gates_(gates) {}
  void prepare(Plan& plan) override;
  void run(Plan& plan) override;

 private:
  std::shared_ptr<const Dense> layer_;
  int top_k_, x_, gates_;
  std::ptrdiff_t stride_ = 0;
  Buffer logits_;
};

class ExpertsStep final : public Step {
 public:
  using Layers = std::vector<std::shared_ptr<const Dense>>;
  ExpertsStep(Layers fc1, const Gelu& gelu, Layers fc2, int most_active, int x, int gates, int residual, int y)
      : fc1_(std::move(fc1)),
        fc2_(std::move(fc2)),
        gelu_(gelu),
        most_active_(most_active),
        x_(x),
        gates_(gates),
        residual_(residual),
        y_(y) {}
  void prepare(Plan& plan) override;
  void run(Plan& plan) override;

 private:
  struct Pair {  // a token of an expert's queue
    int token;
    std::uint16_t gate;
  };
  struct Chunk {  // up to kRows pairs of one expert
    int expert;
    Range pairs;
  };
  struct Local {  // of one thread
    Buffer x, hidden;
  };
  static constexpr int kRows = 64;
  void queue(const Plan& plan);
  void compute(const Plan& plan, const Chunk& chunk, int thread);
  void combine(const Plan& plan, Range rows);

  Layers fc1_, fc2_;
  Gelu gelu_;
  int most_active_, x_, gates_, residual_, y_;
  std::vector<std::vector<Pair>> queues_;
  std::vector<Pair> pairs_;
  std::vector<Chunk> chunks_;
  Buffer outputs_;
  std::vector<Local> locals_;
};

}  // namespace codesign
