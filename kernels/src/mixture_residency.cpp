// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "codesign/residency.hpp"

namespace codesign {

Residency::Residency(const std::vector<Slots>& slots, const std::vector<ResidentBlock>& blocks, double half_life)
    : half_life_(half_life) {
  for (const Slots& one : slots) {
    Kind kind;
    room_ += one.count * one.size;
    for (std::int64_t i = one.count; i-- > 0;)
      kind.free.push_back(one.place + i * one.size);
    kinds_.push_back(std::move(kind));
  }
  for (const ResidentBlock& block : blocks) {
    State state;
    state.size = block.size;
    state.layer = block.layer;
    state.pinned = block.pin >= 0;
    state.place = block.pin;
    state.worth = std::log2(block.uses);
    for (std::size_t k = 0; k < slots.size(); ++k) {
      if (slots[k].size == block.size)
        state.kind = static_cast<int>(k);
    }
    if (!state.pinned && state.kind < 0)
      throw std::invalid_argument("a block must have slots of its size");
    layers_.resize(std::max(layers_.size(), static_cast<std::size_t>(block.layer) + 1));
    blocks_.push_back(state);
  }
}

std::int64_t Residency::available(int kind) const {
  const Kind& of = kinds_.at(static_cast<std::size_t>(kind));
  return static_cast<std::int64_t>(of.free.size()) + of.idle + of.ahead;
}

void Residency::append(int block) {
  State& state = at(block);
  Kind& kind = kind_of(state);
  state.previous = kind.last;
  state.next = -1;
  (kind.last < 0 ? kind.first : at(kind.last).next) = block;
  kind.last = block;
  ++kind.idle;
}

void Residency::remove(int block) {
  State& state = at(block);
  Kind& kind = kind_of(state);
  (state.previous < 0 ? kind.first : at(state.previous).next) = state.next;
  (state.next < 0 ? kind.last : at(state.next).previous) = state.previous;
  --kind.idle;
}

bool Residency::gives_way(const State& one, const State& other) const {
  if (half_life_ == 0)
    return false;
  if (one.named != other.named)
    return other.named;
  return worth(one) < worth(other);
}

// log2 of its uses, each as old as it will be at the layer's next pass: of two blocks with as many, the one whose layer
// comes later gives way.
double Residency::worth(const State& state) const {
  const Turns& own = turns(state.layer);
  const double to_come = std::max(0.0, 1 - (passes_ - own.last) / own.apart);
  return state.worth - age(state.layer) - to_come / half_life_;
}

std::int64_t Residency::evict(const State& for_one, const Keep& keep) {
  const Kind& kind = kind_of(for_one);
  const auto stays = [&](const State& one) {
    return one.layer == keep.layer || (keep.named && one.named) || (keep.better && gives_way(for_one, one));
  };
  int victim = -1;
  for (int block = kind.first; block >= 0; block = at(block).next) {
    if (!stays(at(block)) && (victim < 0 || gives_way(at(block), at(victim))))
      victim = block;
  }
  if (victim < 0)
    return -1;
  remove(victim);
  at(victim).here = false;
  return at(victim).place;
}

std::int64_t Residency::begin_load(int block, const Keep& keep) {
  State& state = at(block);
  if (!state.pinned) {
    Kind& kind = kind_of(state);
    std::int64_t place = -1;
    if (kind.free.empty()) {
      place = evict(state, keep);
    } else {
      place = kind.free.back();
      kind.free.pop_back();
    }
    if (place < 0)
      return -1;
    state.place = place;
    ++kind.ahead;
  }
  state.here = state.loading = true;
  return state.place;
}

void Residency::end_load(int block) {
  State& state = at(block);
  state.loading = false;
  if (state.pinned || state.claimed)
    return;
  --kind_of(state).ahead;
  append(block);
}

void Residency::drop(int block) {
  State& state = at(block);
  state.loading = state.here = false;
  if (state.pinned)
    return;
  Kind& kind = kind_of(state);
  if (!state.claimed)
    --kind.ahead;
  state.claimed = false;
  kind.free.push_back(state.place);
}

void Residency::claim(int block) {
  State& state = at(block);
  if (state.pinned || state.claimed)
    return;
  state.claimed = true;
  if (state.loading) {
    --kind_of(state).ahead;
  } else {
    remove(block);
  }
}

void Residency::release(int block) {
  State& state = at(block);
  if (!state.claimed)
    return;
  state.claimed = false;
  if (state.loading) {
    ++kind_of(state).ahead;
  } else {
    append(block);
  }
}

void Residency::turn(int layer) {
  Turns& own = layers_.at(static_cast<std::size_t>(layer));
  ++passes_;
  own = {own.count + 1, passes_, own.count == 0 ? static_cast<double>(layers_.size()) : passes_ - own.last};
}

void Residency::use(int block, double share) {
  touch(block);
  if (half_life_ == 0)
    return;
  State& state = at(block);
  const double now = age(state.layer);
  state.worth = std::log2(std::exp2(state.worth - now) + share) + now;
}

void Residency::name(int block) {
  touch(block);
  at(block).named = true;
}

void Residency::forget(int block) {
  at(block).named = false;
}

void Residency::touch(int block) {
  const State& state = at(block);
  if (state.pinned || !state.here || state.loading || state.claimed)
    return;
  remove(block);
  append(block);
}

}  // namespace codesign
