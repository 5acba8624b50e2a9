// SPDX-License-Identifier: Apache-2.0
// In which order the blocks of a layer are read and computed, and which may be in the arena at a time: docs/edge.md,
// section 6. Pure logic: a LayerRun is told what has arrived and what was computed, and says what comes next.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "codesign/residency.hpp"

namespace codesign {

enum class Order {
  on_demand,          // expert after expert; each is read when its turn comes, and computed then
  sequential,         // as in the file: by level, then by expert
  hottest_bit_first,  // D2MoE's HEBF: of every expert's next level, the one with most tokens goes first
};

// A block that `tokens` tokens of the layer read. They also read every level below it.
struct Demand {
  int expert = 0, level = 0, block = 0;
  std::int64_t tokens = 0;
};

// What any token reads, in its order.
std::vector<Demand> in_order(Order order, const std::vector<Demand>& demand);

// One layer's pass, in which every block of an expert stays until the expert is complete. It never deadlocks: a block
// is only admitted when all experts that have begun can still be completed with the slots that there are (Dijkstra's
// banker, with experts as processes and slots as money).
class LayerRun {
 public:
  // `eager`: what is already here is computed before what is still read (COMET, arXiv 2502.19811); but when the reader
  // has no room, an expert that gives its slots back goes first.
  LayerRun(Residency& residency, const std::vector<Demand>& demand, Order order, bool eager);

  bool done() const { return open_ == 0; }              // every block was computed
  bool all_asked_for() const { return waiting_ == 0; }  // nothing of this layer is left to be read

  struct Load {
    int block;
    std::int64_t place;
  };
  // A block to read now. It is expected to arrive.
  std::optional<Load> next_load();
  void begun(int block);    // of a block of this layer that is being read, more is here
  void arrived(int block);  // a block of this layer was read

  // A block to compute now, or none when the next ones are still being read.
  const Demand* next_step() const;
  // The last of the levels that follow a step and are here as well: one pass over the tokens serves them all.
  int also_ready(const Demand& step) const;
  // When there is no step: one of which more is here than when it was last given.
  const Demand* next_begun();
  void computed(const Demand& step);  // with an expert's last one all of its blocks may give way

  std::int64_t hits() const { return hits_; }
  std::int64_t hit_bytes() const { return hit_bytes_; }

 private:
  struct Step {
    Demand what;
    bool waiting = true, ready = false, open = true, news = false, read = false;
  };
  struct Expert {
    std::vector<int> steps;                // by level
    std::vector<std::int64_t> need, held;  // slots by kind
    bool begun = false;                    // it holds slots
    int computed = 0;
  };
  void use();  // tells that a pass begins, and what it uses
  bool busy() const;
  Step* find(int block);
  Expert& expert_of(const Step& step) { return experts_[static_cast<std::size_t>(step.what.expert)]; }
  const Expert& expert_of(const Step& step) const { return experts_[static_cast<std::size_t>(step.what.expert)]; }
  bool turn_is_here(const Step& first) const;
  const Step* makes_room() const;
  const Step* lets_read() const;
  std::vector<Step*> candidates();
  bool safe(const Step& step) const;
  bool can_finish(const Step& step, std::vector<std::int64_t> free) const;
  void admit(Step& step);
  void take(Step& step);

  Residency& at_;
  bool ahead_, eager_;
  std::vector<Step> steps_;
  std::vector<Expert> experts_;     // by number
  std::vector<std::int64_t> lack_;  // slots by kind that experts that have begun still need
  std::size_t open_, waiting_;
  bool held_back_ = false;   // the last time, nothing was read because enough is waiting to be computed
  std::size_t flying_ = 0;   // blocks that were asked for and are not here
  std::int64_t coming_ = 0;  // bytes of those that were asked for and are not computed
  std::size_t first_open_ = 0, first_waiting_ = 0;
  std::int64_t hits_ = 0, hit_bytes_ = 0;
};

}  // namespace codesign
