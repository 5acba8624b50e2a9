// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <stdexcept>
#include <utility>

#include "codesign/stream.hpp"

namespace codesign {
namespace {

constexpr std::int64_t kSlice = 50'000;  // microseconds of waiting between two looks for an interrupt
constexpr std::size_t kAhead = 4;        // reads for the next layer that may wait: its real ones come behind them

}  // namespace

Stream::Stream(std::shared_ptr<Arena> arena, std::shared_ptr<Reader> reader, std::shared_ptr<Residency> residency,
               std::vector<StoredBlock> blocks, std::vector<std::shared_ptr<StreamLayer>> layers, Order order,
               bool eager, std::function<void()> interrupted)
    : arena_(std::move(arena)),
      reader_(std::move(reader)),
      residency_(std::move(residency)),
      blocks_(std::move(blocks)),
      here_(blocks_.size()),
      layers_(std::move(layers)),
      order_(order),
      eager_(eager),
      interrupted_(std::move(interrupted)) {
  for (const auto& layer : layers_) {
    in_parts_ = in_parts_ && !layer->mixture.shape().residual();
    for (int i = 0; i < layer->levels() * layer->experts(); ++i) {
      const auto level = static_cast<std::size_t>(i / layer->experts());
      const int block = layer->base + i;
      const StoredBlock& stored = blocks_.at(static_cast<std::size_t>(block));
      const auto room = static_cast<std::uint64_t>(residency_->size(block));
      if (stored.bytes > room || static_cast<std::uint64_t>(layer->sizes[level]) > stored.bytes) {
        throw std::invalid_argument("a block must hold its level, and its slot the block");
      }
    }
  }
}

StreamLog Stream::take_log() {
  return std::exchange(log_, {});
}

PassEnd Stream::warm(const std::vector<int>& blocks) {
  for (const int block : blocks) {
    if (residency_->resident(block) || residency_->loading(block))
      continue;
    const std::int64_t place = residency_->begin_load(block);
    if (place < 0)
      throw std::invalid_argument("a block to be warmed must be pinned, or find a free slot");
    submit(block, place);
  }
  std::int64_t ignored = 0;
  while (reader_->pending() > 0) {
    if (Failure bad = collect(kSlice, nullptr, nullptr, ignored))
      return {0, bad};
    interrupted_();
  }
  return {};
}

PassEnd Stream::run(int number, const Batch& batch, const Ahead& ahead, std::int16_t* y) {
  StreamLayer& layer = *layers_.at(static_cast<std::size_t>(number));
  PassEvent pass{number, now_ns(), 0, 0, 0};
  if (const int width = pass_.begin(layer, batch))
    return {width, {}};
  if (Failure bad = forget_ahead())
    return {0, bad};
  LayerRun run(*residency_, pass_.demand(), order_, eager_);
  foresee(layer, ahead);
  log(Event::sorted, pass.begin);
  if (Failure bad = proceed(layer, run, ahead, pass))
    return {0, bad};
  const std::int64_t at = now_ns();
  pass_.result(y);
  log(Event::summed, at);
  pass.end = log_.events.back().end;
  if (pass.first_compute == 0)
    pass.first_compute = pass.end;
  log_.passes.push_back(pass);
  count(run);
  if (pass.end - looked_ > kSlice * 1000) {
    looked_ = pass.end;
    interrupted_();
  }
  return {};
}

void Stream::count(const LayerRun& run) {
  Counts& counts = log_.counts;
  counts.hits += run.hits();
  counts.hit_bytes += run.hit_bytes();
  counts.pairs += pass_.pairs();
  counts.pair_bits += pass_.pair_bits();
  for (const Demand& one : pass_.demand()) {
    ++counts.blocks;
    counts.block_bytes += residency_->size(one.block);
  }
}

Stream::Failure Stream::proceed(StreamLayer& layer, LayerRun& run, const Ahead& ahead, PassEvent& pass) {
  while (!run.done()) {
    // First what has arrived, then what it makes room for: what is not seen here is still pending when we wait.
    if (Failure bad = collect(0, &run, &layer, pass.last_read))
      return bad;
    while (const auto load = run.next_load())
      submit(load->block, load->place);
    if (run.all_asked_for())
      look_ahead(ahead);
    const Demand* const step = run.next_step();
    const Demand* const begun = step == nullptr ? run.next_begun() : nullptr;
    if (step == nullptr && begun == nullptr) {
      if (Failure bad = wait(layer, run, pass))
        return bad;
      continue;
    }
    if (pass.first_compute == 0)
      pass.first_compute = now_ns();
    if (begun != nullptr) {
      compute_begun(layer, *begun);
    } else {
      compute(layer, run, *step);
    }
  }
  return std::nullopt;
}

Stream::Failure Stream::wait(StreamLayer& layer, LayerRun& run, PassEvent& pass) {
  if (reader_->pending() == 0)
    throw std::logic_error("the schedule waits for a block that nobody reads");
  const std::int64_t at = now_ns();
  Failure bad = collect(kSlice, &run, &layer, pass.last_read);
  log(Event::stalled, at);
  if (log_.events.back().end - at > kSlice * 900)
    interrupted_();
  return bad;
}

void Stream::compute(StreamLayer& layer, LayerRun& run, const Demand& step) {
  const std::int64_t at = now_ns();
  const int last = run.also_ready(step);
  pass_.compute(step.expert, last, blocks_of(layer, step.expert, last));
  log(Event::computed, at, step.expert, step.level, last);
  Demand done = step;
  for (; done.level <= last; ++done.level)
    run.computed(done);
}

void Stream::compute_begun(StreamLayer& layer, const Demand& step) {
  const std::int64_t at = now_ns();
  const auto here = static_cast<std::int64_t>(here_[static_cast<std::size_t>(step.block)]);
  pass_.compute_begun(step.expert, step.level, here, blocks_of(layer, step.expert, step.level));
  log(Event::begun, at, step.expert, step.level, step.level);
}

Blocks Stream::blocks_of(const StreamLayer& layer, int expert, int last) const {
  Blocks found;
  for (int level = 0; level <= last; ++level) {
    found.push_back(arena_->data() + residency_->place(layer.base + level * layer.experts() + expert));
  }
  return found;
}

// Tells everybody what has arrived, and when the last block of this layer did.
Stream::Failure Stream::collect(std::int64_t timeout_us, LayerRun* run, const StreamLayer* layer,
                                std::int64_t& last_read) {
  for (const Completion& one : reader_->collect(timeout_us)) {
    const auto block = static_cast<int>(one.tag);
    const bool mine =
        layer != nullptr && block >= layer->base && block < layer->base + layer->levels() * layer->experts();
    if (one.status == Status::begun) {
      here_[static_cast<std::size_t>(block)] = one.here;
      if (mine)
        run->begun(block);
      continue;
    }
    const bool cancelled = one.status == Status::cancelled;
    if (one.status != Status::good && !cancelled)
      return one;
    if (!cancelled && !sound(block)) {
      Completion bad = one;
      bad.status = Status::unsound;
      bad.offset = blocks_[static_cast<std::size_t>(block)].offset;
      return bad;
    }
    log_.reads.push_back({block, cancelled, one.submitted_ns, one.started_ns, one.arrived_ns, one.verified_ns});
    if (cancelled) {
      residency_->drop(block);
    } else if (mine) {
      run->arrived(block);
      last_read = std::max(last_read, one.arrived_ns);
    } else {
      residency_->end_load(block);
    }
  }
  if (reader_->closed())
    throw std::logic_error("the reader was closed");
  return std::nullopt;
}

bool Stream::sound(int block) const {
  for (const auto& layer : layers_) {
    const int at = block - layer->base;
    if (0 <= at && at < layer->levels() * layer->experts()) {
      return layer->mixture.sound(at / layer->experts(), arena_->data() + residency_->place(block));
    }
  }
  throw std::logic_error("a block must be of a layer");
}

// What was to be read ahead and has not begun is asked for again, if it is needed, in this layer's order.
Stream::Failure Stream::forget_ahead() {
  if (reader_->pending() == 0)
    return std::nullopt;
  reader_->cancel();
  std::int64_t ignored = 0;
  return collect(0, nullptr, nullptr, ignored);
}

// The turn of what was named of this layer has come. Of what is named now, the nearest layer's blocks give way last.
void Stream::foresee(const StreamLayer& layer, const Ahead& ahead) {
  for (const Demand& one : pass_.demand())
    log_.counts.foreseen += residency_->named(one.block);
  for (int i = 0; i < layer.levels() * layer.experts(); ++i)
    residency_->forget(layer.base + i);
  ahead_ = 0;
  if (!ahead.foreseen)
    return;
  for (auto block = ahead.blocks.rbegin(); block != ahead.blocks.rend(); ++block)
    residency_->name(*block);
}

void Stream::look_ahead(const Ahead& ahead) {
  for (; ahead_ < ahead.blocks.size(); ++ahead_) {
    const int block = ahead.blocks[ahead_];
    if (reader_->pending() >= kAhead)
      return;
    if (residency_->resident(block) || residency_->loading(block))
      continue;
    const Keep likely{.layer = residency_->layer(block), .better = true}, named{.named = true};
    const std::int64_t place = residency_->begin_load(block, ahead.foreseen ? named : likely);
    if (place < 0)
      return;
    submit(block, place);
  }
}

void Stream::submit(int block, std::int64_t place) {
  const auto at = static_cast<std::size_t>(block);
  const StoredBlock& stored = blocks_.at(at);
  here_[at] = 0;
  reader_->submit({static_cast<std::uint64_t>(block), stored.offset, stored.bytes, static_cast<std::uint64_t>(place),
                   stored.crc, in_parts_});
}

void Stream::log(Event::Kind kind, std::int64_t begin, std::int64_t expert, std::int64_t first, std::int64_t last) {
  log_.events.push_back({kind, expert, first, last, begin, now_ns()});
}

}  // namespace codesign
