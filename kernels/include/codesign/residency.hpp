// SPDX-License-Identifier: Apache-2.0
// Where the blocks of a store lie in the bounded arena (docs/edge.md, section 6). Bookkeeping only: blocks are numbers.
//
// Slots of one size never fragment. What gives way is a block that nobody claims: the least recently used, or the one
// of the fewest uses, where each counts half as much after so many passes of its layer (so a pass that uses
// everything once throws nothing out that is used often). A pinned block, which has a place of its own, never does.
#pragma once

#include <cstdint>
#include <vector>

namespace codesign {

// `count` slots of `size` bytes, one after the other from `place` on.
struct Slots {
  std::int64_t size = 0, count = 0, place = 0;
};

struct ResidentBlock {
  int layer = 0;
  std::int64_t size = 0;
  std::int64_t pin = -1;  // its own place in the arena, or none
  double uses = 0;        // that it is taken to have had
};

// What does not give way to a block: blocks of a layer, those that were named, those that had more uses.
struct Keep {
  int layer = -1;
  bool named = false, better = false;
};

class Residency {
 public:
  // `half_life`: passes of a layer after which a use counts half; 0: only the last use counts.
  // std::invalid_argument when a block has neither a place of its own nor slots of its size.
  Residency(const std::vector<Slots>& slots, const std::vector<ResidentBlock>& blocks, double half_life);

  std::int64_t size(int block) const { return at(block).size; }
  int layer(int block) const { return at(block).layer; }
  bool pinned(int block) const { return at(block).pinned; }
  std::int64_t place(int block) const { return at(block).place; }  // of one that is resident or loading
  bool resident(int block) const { return at(block).here && !at(block).loading; }
  bool loading(int block) const { return at(block).loading; }

  int kinds() const { return static_cast<int>(kinds_.size()); }  // of slots
  int kind(int block) const { return at(block).kind; }
  std::int64_t room() const { return room_; }  // bytes of all slots
  // Slots that are free or can be freed (speculative reads in flight count: they end).
  std::int64_t available(int kind) const;

  // A place to read the block to, or -1 when every slot is in use; what is to be kept stays.
  std::int64_t begin_load(int block, const Keep& keep = {});
  void end_load(int block);  // it has arrived
  void drop(int block);      // it did not arrive: its slot is free again
  void claim(int block);     // it stays until it is released; resident or loading
  void release(int block);   // it was just used, and may give way
  void turn(int layer);      // a pass of this layer begins,
  // which will use the block; `share`: its tokens over those of the pass' most used one.
  void use(int block, double share);
  void name(int block);    // a routing that was foreseen will use it, until its layer's turn
  void forget(int block);  // its layer's turn has come
  bool named(int block) const { return at(block).named; }
  // Whether one gives way before another that was used longer ago.
  bool sooner(int one, int other) const { return worth_less(idle(at(one), one), idle(at(other), other)); }

 private:
  struct State {
    std::int64_t size = 0, place = -1;
    int layer = 0, kind = -1;
    bool pinned = false, here = false, loading = false, claimed = false, named = false;
    double worth = 0;  // log2 of its uses, as of its layer's first pass
    int idle = -1;     // its place among the idle blocks of its kind
  };
  // What decides about an idle block, copied so that a search reads one array.
  struct Idle {
    int block, layer;
    bool named;
    double worth;
    std::int64_t since;  // in the order of last uses
  };
  struct Kind {
    std::vector<std::int64_t> free;
    std::vector<Idle> idle;
    std::int64_t ahead = 0;  // being read, and not claimed
  };
  struct Turns {
    double count = 0, last = 0, apart = 1;  // of a layer: passes; when the last began; from the one before
    double age = 0;                         // in half-lives: what it is at the next pass
  };
  const State& at(int block) const { return blocks_.at(static_cast<std::size_t>(block)); }
  State& at(int block) { return blocks_.at(static_cast<std::size_t>(block)); }
  Kind& kind_of(const State& state) { return kinds_[static_cast<std::size_t>(state.kind)]; }
  void append(int block);
  void remove(int block);
  void touch(int block);
  Idle idle(const State& state, int block) const;
  double worth(const Idle& one) const { return one.worth - layers_[static_cast<std::size_t>(one.layer)].age; }
  bool worth_less(const Idle& one, const Idle& other) const;
  std::int64_t evict(int for_block, const Keep& keep);

  std::vector<State> blocks_;
  std::vector<Kind> kinds_;
  std::vector<Turns> layers_;
  double passes_ = 0;  // of all layers
  std::int64_t uses_ = 0;
  std::int64_t room_ = 0;
  double half_life_;
};

}  // namespace codesign
