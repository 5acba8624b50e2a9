// SPDX-License-Identifier: Apache-2.0
// Mixture layers computed while their experts are read: the loop that schedule, reader and arithmetic meet in
// (docs/edge.md, section 6).
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "codesign/layer_pass.hpp"
#include "codesign/reader.hpp"
#include "codesign/residency.hpp"
#include "codesign/schedule.hpp"

namespace codesign {

// Where a block lies in the file.
struct StoredBlock {
  std::uint64_t offset = 0, bytes = 0;
  std::uint32_t crc = 0;
};

// What the computing thread did from `begin` to `end` (nanoseconds of the monotonic clock).
struct Event {
  enum Kind : std::int64_t { sorted = 0, computed = 1, begun = 2, stalled = 3, summed = 4 };
  std::int64_t kind, expert, first, last, begin, end;  // expert and levels where it was an expert
};

struct ReadEvent {
  std::int64_t block, cancelled, submitted, started, arrived, verified;
};

// One batch through one layer. `last_read`: when its last block arrived; 0 when nothing was read.
struct PassEvent {
  std::int64_t layer, begin, first_compute, last_read, end;
};

struct Counts {
  std::int64_t blocks = 0, block_bytes = 0, hits = 0, hit_bytes = 0, pairs = 0, pair_bits = 0;
  std::int64_t foreseen = 0;  // blocks that were named before their layer's turn
};

struct StreamLog {
  std::vector<Event> events;
  std::vector<ReadEvent> reads;
  std::vector<PassEvent> passes;
  Counts counts;
};

// How a pass ended: well, with a width that the format does not have (-1 stands for 0), or with a block that could not
// be read.
struct PassEnd {
  int bad_width = 0;
  std::optional<Completion> failure;
};

// What may be read, in this order and each block once, when nothing of the current layer is left to be read. It takes
// the place of what was used longest ago: where a routing that was foreseen names the blocks, of any layers, of nothing
// else that was named; where they are only likely, all of the next layer, of nothing of that layer.
struct Ahead {
  std::vector<int> blocks;
  bool foreseen = false;
};

class Stream {
 public:
  // `interrupted` is called now and then, and throws to end a pass.
  // std::invalid_argument when places or blocks do not fit the arena.
  Stream(std::shared_ptr<Arena> arena, std::shared_ptr<Reader> reader, std::shared_ptr<Residency> residency,
         std::vector<StoredBlock> blocks, std::vector<std::shared_ptr<StreamLayer>> layers, Order order, bool eager,
         std::function<void()> interrupted);
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  // Reads blocks and waits for them.
  PassEnd warm(const std::vector<int>& blocks);
  // Computes y [tokens, embed_dim] of a layer. After a failure nothing more can be computed.
  PassEnd run(int number, const Batch& batch, const Ahead& ahead, std::int16_t* y);

  StreamLog take_log();

 private:
  using Failure = std::optional<Completion>;
  Failure proceed(StreamLayer& layer, LayerRun& run, const Ahead& ahead, PassEvent& pass);
  Failure wait(StreamLayer& layer, LayerRun& run, PassEvent& pass);
  Failure collect(std::int64_t timeout_us, LayerRun* run, const StreamLayer* layer, std::int64_t& last_read);
  Failure forget_ahead();
  void compute(StreamLayer& layer, LayerRun& run, const Demand& step);
  void compute_begun(StreamLayer& layer, const Demand& step);
  void look_ahead(const Ahead& ahead);
  void foresee(const StreamLayer& layer, const Ahead& ahead);
  void count(const LayerRun& run);
  void submit(int block, std::int64_t place);
  bool sound(int block) const;
  Blocks blocks_of(const StreamLayer& layer, int expert, int last) const;
  void log(Event::Kind kind, std::int64_t begin, std::int64_t expert = 0, std::int64_t first = 0,
           std::int64_t last = 0);

  std::shared_ptr<Arena> arena_;
  std::shared_ptr<Reader> reader_;
  std::shared_ptr<Residency> residency_;
  std::vector<StoredBlock> blocks_;
  std::vector<std::uint64_t> here_;  // of each block: bytes from its begin on that have arrived while it is read
  std::vector<std::shared_ptr<StreamLayer>> layers_;
  Order order_;
  bool eager_;
  bool in_parts_ = true;  // blocks are computed as they arrive
  std::function<void()> interrupted_;
  std::int64_t looked_ = 0;  // when that was last called between two passes
  LayerPass pass_;
  std::size_t ahead_ = 0;  // of the blocks to be read ahead, the next
  StreamLog log_;
};

}  // namespace codesign
