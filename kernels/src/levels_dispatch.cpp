// SPDX-License-Identifier: Apache-2.0
// Chooses the variant, pads rows to whole chunks and sums them, in blocks of rows so that scratch memory is bounded.
#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include "levels_kernels.hpp"

namespace codesign {
namespace levels {
namespace {

struct Free {
  void operator()(void* p) const { std::free(p); }
};

struct Buffer {
  std::unique_ptr<void, Free> memory;
  std::size_t bytes = 0;
};

const Kernels& kernels(Variant variant) {
  switch (variant) {
#if defined(__x86_64__)
    case Variant::avx2:
      return kAvx2;
    case Variant::avx512_vnni:
      return kAvx512Vnni;
    case Variant::amx_int8:
      return kAmxInt8;
#endif
#if defined(__aarch64__)
    case Variant::neon:
      return kNeon;
#endif
    default:
      return kPortable;
  }
}

std::int64_t round_up(std::int64_t n, std::int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

// The rows as they are where their length is whole chunks, else a copy filled up with zeros.
const std::int8_t* whole_chunks(const std::int8_t* x, std::int64_t rows, std::int64_t inputs, std::int64_t padded) {
  if (inputs == padded) {
    return x;
  }
  auto* copy = static_cast<std::int8_t*>(scratch(Slot::rows, static_cast<std::size_t>(rows * padded)));
  for (std::int64_t t = 0; t < rows; ++t) {
    std::memcpy(copy + t * padded, x + t * inputs, static_cast<std::size_t>(inputs));
    std::memset(copy + t * padded + inputs, 0, static_cast<std::size_t>(padded - inputs));
  }
  return copy;
}

void run(Variant variant, const std::int8_t* x, std::int64_t rows, const LevelWeight& weight, Output out,
         PanelRange panels) {
  const Kernels& k = kernels(variant);
  const std::int64_t padded = round_up(weight.inputs, kChunk);
  for (std::int64_t first = 0; first < rows; first += kRowBlock) {
    const std::int64_t count = std::min(kRowBlock, rows - first);
    const std::int8_t* block = whole_chunks(x + first * weight.inputs, count, weight.inputs, padded);
    auto* corrections = static_cast<std::int32_t*>(scratch(Slot::sums, sizeof(std::int32_t) * kRowBlock));
    for (std::int64_t t = 0; t < count; ++t) {
      corrections[t] = weight.offset == 0 ? 0 : weight.offset * k.sum(block + t * padded, padded);
    }
    k.gemm({block, count, padded, padded / kChunk, corrections}, weight, out, panels);
    out.acc = out.acc == nullptr ? nullptr : out.acc + count * weight.outputs;
    out.y = out.y == nullptr ? nullptr : out.y + count * weight.outputs;
  }
}

}  // namespace

void* scratch(Slot slot, std::size_t bytes) {
  thread_local Buffer buffers[static_cast<int>(Slot::count)];
  Buffer& buffer = buffers[static_cast<int>(slot)];
  if (buffer.bytes < bytes) {
    const std::size_t whole = (bytes + 4095) / 4096 * 4096;
    buffer.memory.reset();
    buffer.bytes = 0;
    buffer.memory.reset(std::aligned_alloc(4096, whole));
    if (!buffer.memory) {
      throw std::bad_alloc();
    }
    buffer.bytes = whole;
  }
  return buffer.memory.get();
}

}  // namespace levels

void level_gemm(Variant variant, const std::int8_t* x, std::int64_t rows, const LevelWeight& weight, std::int32_t* acc,
                bool accumulate, PanelRange panels) {
  levels::run(variant, x, rows, weight, {weight.outputs, acc, accumulate, {}, nullptr}, panels);
}

void level_linear(Variant variant, const std::int8_t* x, std::int64_t rows, const LevelWeight& weight,
                  const OutputRescale& rescale, std::int8_t* y, PanelRange panels) {
  levels::run(variant, x, rows, weight, {weight.outputs, nullptr, false, rescale, y}, panels);
}

void residual_gemm(Variant variant, const std::int8_t* x, std::int64_t rows, const ResidualWeight& weight,
                   std::int64_t* acc, bool accumulate, PanelRange panels) {
  using namespace levels;
  const Kernels& k = kernels(variant);
  const std::int64_t padded = round_up(weight.inputs, kChunk);
  const std::int64_t groups = round_up(padded, kResidualGroup) / kResidualGroup;
  for (std::int64_t first = 0; first < rows; first += kRowBlock) {
    const std::int64_t count = std::min(kRowBlock, rows - first);
    const std::int8_t* block = whole_chunks(x + first * weight.inputs, count, weight.inputs, padded);
    auto* sums = static_cast<std::int32_t*>(
        scratch(Slot::sums, sizeof(std::int32_t) * static_cast<std::size_t>(count * groups)));
    for (std::int64_t t = 0; t < count; ++t) {
      for (std::int64_t g = 0; g < groups; ++g) {
        const std::int64_t begin = g * kResidualGroup;
        sums[t * groups + g] = k.sum(block + t * padded + begin, std::min(kResidualGroup, padded - begin));
      }
    }
    k.residual({block, count, padded, padded / kChunk, groups, sums}, weight, acc + first * weight.outputs, accumulate,
               panels);
  }
}

void decode_trits(Variant variant, const std::uint8_t* trits, std::int64_t cells, std::uint8_t* out) {
  levels::kernels(variant).trits(trits, cells, out);
}

}  // namespace codesign
