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
  return static_cast<std::int64_t>(of.free.size() + of.idle.size()) + of.ahead;
}

Residency::Idle Residency::idle(const State& state, int block) const {
  return {block, state.layer, state.named, state.worth, uses_};
}

void Residency::append(int block) {
  State& state = at(block);
  std::vector<Idle>& idle = kind_of(state).idle;
  state.idle = static_cast<int>(idle.size());
  ++uses_;
  idle.push_back(this->idle(state, block));
}

void Residency::remove(int block) {
  State& state = at(block);
  std::vector<Idle>& idle = kind_of(state).idle;
  const auto place = static_cast<std::size_t>(state.idle);
  at(idle.back().block).idle = state.idle;
  idle[place] = idle.back();
  idle.pop_back();
  state.idle = -1;
}

// Of blocks with as many uses the one whose layer comes later is worth less.
bool Residency::worth_less(const Idle& one, const Idle& other) const {
  if (half_life_ == 0)
    return false;
  return one.named != other.named ? other.named : worth(one) < worth(other);
}

std::int64_t Residency::evict(int for_block, const Keep& keep) {
  const State& for_one = at(for_block);
  const Idle wanted = idle(for_one, for_block);
  const Idle* victim = nullptr;
  for (const Idle& one : kind_of(for_one).idle) {
    if (one.layer == keep.layer || (keep.named && one.named) || (keep.better && worth_less(wanted, one)))
      continue;
    const bool sooner = victim == nullptr || worth_less(one, *victim);
    if (sooner || (one.since < victim->since && !worth_less(*victim, one)))
      victim = &one;
  }
  if (victim == nullptr)
    return -1;
  const int block = victim->block;
  remove(block);
  at(block).here = false;
  return at(block).place;
}

std::int64_t Residency::begin_load(int block, const Keep& keep) {
  State& state = at(block);
  if (!state.pinned) {
    Kind& kind = kind_of(state);
    std::int64_t place = -1;
    if (kind.free.empty()) {
      place = evict(block, keep);
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
  own = {own.count + 1, passes_, own.count == 0 ? static_cast<double>(layers_.size()) : passes_ - own.last, 0};
  if (half_life_ == 0)
    return;
  for (Turns& one : layers_)
    one.age = (one.count + std::max(0.0, 1 - (passes_ - one.last) / one.apart)) / half_life_;
}

void Residency::use(int block, double share) {
  State& state = at(block);
  if (half_life_ > 0) {
    const double now = layers_[static_cast<std::size_t>(state.layer)].count / half_life_;
    state.worth = std::log2(std::exp2(state.worth - now) + share) + now;
  }
  touch(block);
}

void Residency::name(int block) {
  at(block).named = true;
  touch(block);
}

void Residency::forget(int block) {
  State& state = at(block);
  state.named = false;
  if (state.idle >= 0)
    kind_of(state).idle[static_cast<std::size_t>(state.idle)].named = false;
}

// It was used, or will be.
void Residency::touch(int block) {
  State& state = at(block);
  if (state.idle < 0)
    return;
  ++uses_;
  kind_of(state).idle[static_cast<std::size_t>(state.idle)] = idle(state, block);
}

}  // namespace codesign
