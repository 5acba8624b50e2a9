// SPDX-License-Identifier: Apache-2.0
#include <stdexcept>

#include "codesign/residency.hpp"

namespace codesign {

Residency::Residency(const std::vector<Slots>& slots, const std::vector<ResidentBlock>& blocks) {
  for (const Slots& one : slots) {
    Kind kind;
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
    for (std::size_t k = 0; k < slots.size(); ++k) {
      if (slots[k].size == block.size)
        state.kind = static_cast<int>(k);
    }
    if (!state.pinned && state.kind < 0)
      throw std::invalid_argument("a block must have slots of its size");
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

std::int64_t Residency::evict(const Kind& kind, const Keep& keep) {
  const auto stays = [&keep](const State& one) { return one.layer == keep.layer || (keep.named && one.named); };
  int victim = kind.first;
  while (victim >= 0 && stays(at(victim)))
    victim = at(victim).next;
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
      place = evict(kind, keep);
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
