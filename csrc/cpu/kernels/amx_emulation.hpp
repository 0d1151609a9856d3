// AMX tiles in plain C++, for tests on CPUs without them: the same products.hpp code runs over these, so its
// layouts, addresses and arithmetic are executed and not only compiled. Never part of a wheel.
#pragma once

#include <cstdint>
#include <cstring>

namespace rledit::cpu::RLEDIT_ISA {
namespace {

struct EmulatedTile {
  alignas(64) unsigned char bytes[16][64];
};
thread_local EmulatedTile emulated_tiles[8];

inline void emulated_load(int tile, const void* from, int64_t stride) {
  for (int row = 0; row < 16; ++row)
    std::memcpy(emulated_tiles[tile].bytes[row], static_cast<const char*>(from) + row * stride, 64);
}

inline void emulated_store(int tile, void* to, int64_t stride) {
  for (int row = 0; row < 16; ++row)
    std::memcpy(static_cast<char*>(to) + row * stride, emulated_tiles[tile].bytes[row], 64);
}

inline void emulated_zero(int tile) { std::memset(&emulated_tiles[tile], 0, sizeof(EmulatedTile)); }

// Not instrumented by sanitizers: these two touch nothing but tiles, and are where a checked build would spend
// nearly all its time. What reads and writes memory is above.
#define RLEDIT_UNCHECKED __attribute__((no_sanitize("address", "undefined", "thread")))

RLEDIT_UNCHECKED inline float emulated_half(const unsigned char* from) {
  uint16_t half;
  std::memcpy(&half, from, 2);
  const uint32_t bits = uint32_t{half} << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// TDPBF16PS: for each pair of inputs the sum gets the product of the first, then that of the second.
RLEDIT_UNCHECKED inline void emulated_multiply(int sum, int a, int b) {
  for (int m = 0; m < 16; ++m)
    for (int k = 0; k < 16; ++k)
      for (int n = 0; n < 16; ++n) {
        unsigned char* at = emulated_tiles[sum].bytes[m] + 4 * n;
        float value;
        std::memcpy(&value, at, 4);
        for (int half = 0; half < 2; ++half)
          value += emulated_half(emulated_tiles[a].bytes[m] + 4 * k + 2 * half) *
                   emulated_half(emulated_tiles[b].bytes[k] + 4 * n + 2 * half);
        std::memcpy(at, &value, 4);
      }
}

}  // namespace
}  // namespace rledit::cpu::RLEDIT_ISA

#define RLEDIT_TILE_LOAD(tile, from, stride) emulated_load(tile, from, stride)
#define RLEDIT_TILE_STORE(tile, to, stride) emulated_store(tile, to, stride)
#define RLEDIT_TILE_ZERO(tile) emulated_zero(tile)
#define RLEDIT_TILE_MULTIPLY(sum, a, b) emulated_multiply(sum, a, b)
