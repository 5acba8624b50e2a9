// SPDX-License-Identifier: Apache-2.0
// Where the blocks of a store lie in the bounded arena (docs/edge.md, section 6). Bookkeeping only: blocks are numbers.
//
// Slots of one size never fragment. The least recently used block that nobody claims gives way; a pinned block, which
// has a place of its own, never does.
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
};

// What does not give way to a block that is read ahead: blocks of a layer, or those that were named.
struct Keep {
  int layer = -1;
  bool named = false;
};

class Residency {
 public:
  // std::invalid_argument when a block has neither a place of its own nor slots of its size.
  Residency(const std::vector<Slots>& slots, const std::vector<ResidentBlock>& blocks);

  std::int64_t size(int block) const { return at(block).size; }
  int layer(int block) const { return at(block).layer; }
  bool pinned(int block) const { return at(block).pinned; }
  std::int64_t place(int block) const { return at(block).place; }  // of one that is resident or loading
  bool resident(int block) const { return at(block).here && !at(block).loading; }
  bool loading(int block) const { return at(block).loading; }

  int kinds() const { return static_cast<int>(kinds_.size()); }  // of slots
  int kind(int block) const { return at(block).kind; }
  // Slots that are free or can be freed (speculative reads in flight count: they end).
  std::int64_t available(int kind) const;

  // A place to read the block to, or -1 when every slot is in use; what is to be kept stays.
  std::int64_t begin_load(int block, const Keep& keep = {});
  void end_load(int block);  // it has arrived
  void drop(int block);      // it did not arrive: its slot is free again
  void claim(int block);     // it stays until it is released; resident or loading
  void release(int block);   // it was just used, and may give way
  void touch(int block);     // it will be used soon
  void name(int block);      // a routing that was foreseen will use it, until its layer's turn
  void forget(int block);    // its layer's turn has come
  bool named(int block) const { return at(block).named; }

 private:
  struct State {
    std::int64_t size = 0, place = -1;
    int layer = 0, kind = -1;
    bool pinned = false, here = false, loading = false, claimed = false, named = false;
    int next = -1, previous = -1;  // in the list of idle blocks of its kind, least recently used first
  };
  struct Kind {
    std::vector<std::int64_t> free;
    std::int64_t ahead = 0;  // being read, and not claimed
    std::int64_t idle = 0;
    int first = -1, last = -1;
  };
  const State& at(int block) const { return blocks_.at(static_cast<std::size_t>(block)); }
  State& at(int block) { return blocks_.at(static_cast<std::size_t>(block)); }
  Kind& kind_of(const State& state) { return kinds_[static_cast<std::size_t>(state.kind)]; }
  void append(int block);
  void remove(int block);
  std::int64_t evict(const Kind& kind, const Keep& keep);

  std::vector<State> blocks_;
  std::vector<Kind> kinds_;
};

}  // namespace codesign
