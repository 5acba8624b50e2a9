// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <queue>
#include <tuple>

#include "codesign/schedule.hpp"

namespace codesign {
namespace {

// Bytes that keep a disk busy, and are worked off meanwhile: more are only read in the place of what had fewer uses
// than they have, so that reading far ahead does not throw out what is used often.
constexpr std::int64_t kComing = 12 << 20;

std::vector<Demand> hottest_first(const std::vector<Demand>& wanted) {
  std::vector<std::vector<const Demand*>> levels;  // of each expert
  for (const Demand& one : wanted) {
    const auto expert = static_cast<std::size_t>(one.expert), level = static_cast<std::size_t>(one.level);
    if (expert >= levels.size())
      levels.resize(expert + 1);
    if (level >= levels[expert].size())
      levels[expert].resize(level + 1);
    levels[expert][level] = &one;
  }
  const auto later = [](const Demand* a, const Demand* b) {
    return std::tuple(-a->tokens, a->expert, a->level) > std::tuple(-b->tokens, b->expert, b->level);
  };
  std::priority_queue<const Demand*, std::vector<const Demand*>, decltype(later)> heads(later);
  for (const auto& expert : levels) {
    if (!expert.empty() && expert[0] != nullptr)
      heads.push(expert[0]);
  }
  std::vector<Demand> made;
  while (!heads.empty()) {
    const Demand* const head = heads.top();
    heads.pop();
    made.push_back(*head);
    const auto& own = levels[static_cast<std::size_t>(head->expert)];
    const auto next = static_cast<std::size_t>(head->level) + 1;
    if (next < own.size() && own[next] != nullptr)
      heads.push(own[next]);
  }
  return made;
}

}  // namespace

std::vector<Demand> in_order(Order order, const std::vector<Demand>& demand) {
  std::vector<Demand> wanted;
  std::copy_if(demand.begin(), demand.end(), std::back_inserter(wanted), [](const Demand& d) { return d.tokens > 0; });
  if (order == Order::hottest_bit_first)
    return hottest_first(wanted);
  const bool by_level = order == Order::sequential;
  std::sort(wanted.begin(), wanted.end(), [by_level](const Demand& a, const Demand& b) {
    return by_level ? std::tuple(a.level, a.expert) < std::tuple(b.level, b.expert)
                    : std::tuple(a.expert, a.level) < std::tuple(b.expert, b.level);
  });
  return wanted;
}

LayerRun::LayerRun(Residency& residency, const std::vector<Demand>& demand, Order order, bool eager)
    : at_(residency), ahead_(order != Order::on_demand), eager_(eager) {
  const auto kinds = static_cast<std::size_t>(at_.kinds());
  for (const Demand& one : in_order(order, demand))
    steps_.push_back({one});
  int last = -1;
  for (const Step& step : steps_)
    last = std::max(last, step.what.expert);
  experts_.resize(static_cast<std::size_t>(last + 1));
  std::vector<bool> missing(experts_.size());
  for (const Step& step : steps_) {
    if (!at_.resident(step.what.block))
      missing[static_cast<std::size_t>(step.what.expert)] = true;
  }
  if (!ahead_ && eager_) {  // on demand, whole experts that are here go first
    std::stable_sort(steps_.begin(), steps_.end(), [&missing](const Step& a, const Step& b) {
      return missing[static_cast<std::size_t>(a.what.expert)] < missing[static_cast<std::size_t>(b.what.expert)];
    });
  }
  for (std::size_t i = 0; i < steps_.size(); ++i) {
    Expert& expert = expert_of(steps_[i]);
    expert.steps.push_back(static_cast<int>(i));  // every order has an expert's levels ascending
    expert.need.resize(kinds);
    expert.held.resize(kinds);
    const int block = steps_[i].what.block;
    if (!at_.pinned(block))
      ++expert.need[static_cast<std::size_t>(at_.kind(block))];
  }
  lack_.resize(kinds);
  open_ = waiting_ = steps_.size();
  use();
  if (!ahead_)
    return;
  for (Step& step : steps_) {
    if (at_.resident(step.what.block) && safe(step))
      admit(step);
  }
}

void LayerRun::use() {
  if (steps_.empty())
    return;
  at_.turn(at_.layer(steps_.front().what.block));
  std::int64_t most = 1;
  for (const Step& step : steps_)
    most = std::max(most, step.what.tokens);
  for (std::size_t i = steps_.size(); i-- > 0;)
    at_.use(steps_[i].what.block, static_cast<double>(steps_[i].what.tokens) / static_cast<double>(most));
}

// -- reading --------------------------------------------------------------------------------------------------------

std::optional<LayerRun::Load> LayerRun::next_load() {
  held_back_ = false;
  for (bool looking = true; looking;) {
    looking = false;
    for (Step* const step : candidates()) {
      const int block = step->what.block;
      if (!safe(*step))
        continue;
      if (at_.resident(block) || at_.loading(block)) {  // spared by luck, or read ahead of this layer
        admit(*step);
        looking = true;
        break;
      }
      const bool patient = ahead_ && busy();
      const std::int64_t place = at_.begin_load(block, {.better = patient});
      held_back_ = place < 0 && patient;
      if (held_back_)
        return std::nullopt;
      if (place < 0)
        continue;
      take(*step);
      return Load{block, place};
    }
  }
  return std::nullopt;
}

// There is enough to read and to compute, and something goes on by itself.
bool LayerRun::busy() const {
  return coming_ >= std::min(kComing, at_.room() / 4) && (flying_ > 0 || next_step() != nullptr);
}

// What may be read now: the first that waits, then what experts that have begun still lack.
std::vector<LayerRun::Step*> LayerRun::candidates() {
  std::vector<Step*> found;
  if (waiting_ == 0)
    return found;
  while (!steps_[first_waiting_].waiting)
    ++first_waiting_;
  if (ahead_ && safe(steps_[first_waiting_]))
    return {&steps_[first_waiting_]};
  while (!steps_[first_open_].open)
    ++first_open_;
  const int turn = steps_[first_open_].what.expert;
  for (std::size_t i = first_waiting_; i < steps_.size(); ++i) {
    Step& step = steps_[i];
    if (step.waiting && (ahead_ ? expert_of(step).begun : step.what.expert == turn))
      found.push_back(&step);
  }
  return found;
}

// Claims a block that is here or on its way.
void LayerRun::admit(Step& step) {
  const int block = step.what.block;
  take(step);
  if (!at_.resident(block))
    return;
  step.ready = true;
  ++hits_;
  hit_bytes_ += at_.size(block);
}

void LayerRun::take(Step& step) {
  const int block = step.what.block;
  at_.claim(block);
  if (!at_.pinned(block)) {
    const auto kind = static_cast<std::size_t>(at_.kind(block));
    Expert& expert = expert_of(step);
    if (!expert.begun) {
      expert.begun = true;
      for (std::size_t k = 0; k < lack_.size(); ++k)
        lack_[k] += expert.need[k];
    }
    ++expert.held[kind];
    --lack_[kind];
  }
  step.waiting = false;
  --waiting_;
  step.read = !at_.resident(block);
  flying_ += step.read;
  coming_ += step.read ? at_.size(block) : 0;
}

// Whether all experts that have begun could be completed after this block got a slot.
bool LayerRun::safe(const Step& step) const {
  const int block = step.what.block;
  if (at_.pinned(block))
    return true;
  const auto mine = static_cast<std::size_t>(at_.kind(block));
  std::vector<std::int64_t> free(lack_.size());
  for (std::size_t k = 0; k < free.size(); ++k)
    free[k] = at_.available(static_cast<int>(k)) - (k == mine);
  if (free[mine] < 0)
    return false;
  const Expert& expert = expert_of(step);
  bool enough = true;
  for (std::size_t k = 0; k < free.size(); ++k) {
    enough = enough && lack_[k] + (expert.begun ? 0 : expert.need[k]) - (k == mine) <= free[k];
  }
  return enough || can_finish(step, std::move(free));
}

// The banker's question: is there an order in which they can all be completed?
bool LayerRun::can_finish(const Step& step, std::vector<std::int64_t> free) const {
  const Expert* const candidate = &expert_of(step);
  const auto mine = static_cast<std::size_t>(at_.kind(step.what.block));
  std::vector<const Expert*> begun;
  for (const Expert& expert : experts_) {
    if (expert.begun || &expert == candidate)
      begun.push_back(&expert);
  }
  const auto held = [&](const Expert* e, std::size_t k) { return e->held[k] + (e == candidate && k == mine); };
  while (!begun.empty()) {
    const auto able = std::find_if(begun.begin(), begun.end(), [&](const Expert* e) {
      for (std::size_t k = 0; k < free.size(); ++k) {
        if (e->need[k] - held(e, k) > free[k])
          return false;
      }
      return true;
    });
    if (able == begun.end())
      return false;
    for (std::size_t k = 0; k < free.size(); ++k)
      free[k] += held(*able, k);
    begun.erase(able);
  }
  return true;
}

LayerRun::Step* LayerRun::find(int block) {
  const auto at = std::find_if(steps_.begin(), steps_.end(), [block](const Step& s) { return s.what.block == block; });
  return at == steps_.end() ? nullptr : &*at;
}

void LayerRun::begun(int block) {
  Step* const step = find(block);
  if (step != nullptr && !step->waiting && step->open)
    step->news = true;
}

void LayerRun::arrived(int block) {
  at_.end_load(block);
  Step* const step = find(block);
  if (step != nullptr && !step->waiting && step->open) {
    step->ready = true;
    --flying_;
  }
}

// -- computing ------------------------------------------------------------------------------------------------------

// The baseline overlaps nothing: all of an expert is here before it begins.
bool LayerRun::turn_is_here(const Step& first) const {
  const auto& own = expert_of(first).steps;
  return std::all_of(own.begin(), own.end(), [this](int i) {
    const Step& step = steps_[static_cast<std::size_t>(i)];
    return step.ready || !step.open;
  });
}

// When what waits finds no room: the next step of an expert that is here as a whole and holds slots, and of those the
// one that gives way.
const LayerRun::Step* LayerRun::makes_room() const {
  if (waiting_ == 0)
    return nullptr;
  const auto waits = std::find_if(steps_.begin(), steps_.end(), [](const Step& step) { return step.waiting; });
  if (safe(*waits))
    return nullptr;
  const Step* found = nullptr;
  for (const Step& step : steps_) {
    const Expert& expert = expert_of(step);
    const bool complete = step.open && expert.begun && expert.computed == step.what.level && turn_is_here(step);
    if (complete && (found == nullptr || at_.sooner(step.what.block, found->what.block)))
      found = &step;
  }
  return found;
}

// When reading is held back until more is computed: the first step that was read.
const LayerRun::Step* LayerRun::lets_read() const {
  const auto found = std::find_if(steps_.begin(), steps_.end(), [this](const Step& step) {
    return step.open && step.ready && step.read && expert_of(step).computed == step.what.level;
  });
  return found == steps_.end() ? nullptr : &*found;
}

const Demand* LayerRun::next_step() const {
  if (open_ == 0)
    return nullptr;
  std::size_t at = first_open_;
  while (!steps_[at].open)
    ++at;
  const Step& first = steps_[at];
  if (!ahead_)
    return turn_is_here(first) ? &first.what : nullptr;
  if (const Step* const step = eager_ ? makes_room() : nullptr)
    return &step->what;
  if (const Step* const step = eager_ && held_back_ ? lets_read() : nullptr)
    return &step->what;
  if (first.ready)
    return &first.what;
  if (!eager_ && !first.waiting)
    return nullptr;
  for (; at < steps_.size(); ++at) {
    const Step& step = steps_[at];
    if (step.open && step.ready && expert_of(step).computed == step.what.level)
      return &step.what;
  }
  return nullptr;
}

int LayerRun::also_ready(const Demand& step) const {
  const auto& own = experts_[static_cast<std::size_t>(step.expert)].steps;
  auto level = static_cast<std::size_t>(step.level);
  while (level + 1 < own.size() && steps_[static_cast<std::size_t>(own[level + 1])].ready)
    ++level;
  return static_cast<int>(level);
}

const Demand* LayerRun::next_begun() {
  if (!ahead_)
    return nullptr;
  for (Step& step : steps_) {
    if (!step.open)
      continue;
    if (step.news && !step.ready && expert_of(step).computed == step.what.level) {
      step.news = false;
      return &step.what;
    }
    if (!eager_ && !step.waiting)
      return nullptr;
  }
  return nullptr;
}

void LayerRun::computed(const Demand& done) {
  Expert& expert = experts_[static_cast<std::size_t>(done.expert)];
  Step& step = steps_[static_cast<std::size_t>(expert.steps[static_cast<std::size_t>(done.level)])];
  step.open = step.ready = step.news = false;
  --open_;
  coming_ -= step.read ? at_.size(step.what.block) : 0;
  ++expert.computed;
  if (expert.computed < static_cast<int>(expert.steps.size()))
    return;
  for (const int i : expert.steps)
    at_.release(steps_[static_cast<std::size_t>(i)].what.block);
  expert.begun = false;
}

}  // namespace codesign
