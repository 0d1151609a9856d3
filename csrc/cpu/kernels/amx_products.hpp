// Products of bfloat16 pairs on AMX tiles: 16 weights rows of 32 inputs times 32 inputs of 16 samples.
// A panel of 16 rows meets the 64 samples of a tile in four accumulators, so each weight tile is loaded
// once for four products. float32 as two bfloat16 each takes three products, hi*hi + hi*lo + lo*hi. What is
// missing, lo*lo and what the rounding of lo left, is up to 2^-15 of a term, so these serve float32 only where
// somebody asks for them, see dispatch.cpp.
#pragma once

#include "layouts.hpp"
#include "paired_packing.hpp"
#include "products.hpp"

#if RLEDIT_BF16 == 2
#include <immintrin.h>
// Tile numbers are part of the instruction, so these can be no functions.
#define RLEDIT_TILE_LOAD(tile, from, stride) _tile_loadd(tile, from, stride)
#define RLEDIT_TILE_STORE(tile, to, stride) _tile_stored(tile, to, stride)
#define RLEDIT_TILE_ZERO(tile) _tile_zero(tile)
#define RLEDIT_TILE_MULTIPLY(sum, a, b) _tile_dpbf16ps(sum, a, b)
#else
#include "amx_emulation.hpp"
#endif

namespace rledit::cpu::RLEDIT_ISA {
namespace {

static_assert(kMaxRows == 16, "a panel is one AMX tile");

#if RLEDIT_BF16 == 2
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t bytes_per_row[16] = {};
  uint8_t rows[16] = {};
};

void begin() {
  TileConfig config;
  for (int tile = 0; tile < 8; ++tile) {
    config.bytes_per_row[tile] = 64;
    config.rows[tile] = 16;
  }
  // GCC does not see that the instruction reads memory, and drops the stores without this.
  __asm__ volatile("" ::"r"(&config) : "memory");
  _tile_loadconfig(&config);
}

void end() { _tile_release(); }
#else
void begin() {}
void end() {}
#endif

constexpr int kPairStride = 4 * kTile;         // bytes from one pair of a tile to the next
constexpr int kBlockBytes = 16 * kPairStride;  // of a tile: 32 inputs
constexpr int kPanelBytes = 1024;              // of a panel: 16 rows of 32 inputs

// sums [16][kTile] = panel @ tile
void multiply_tiles(const char* panel, const char* tile, int64_t blocks, float* sums) {
  RLEDIT_TILE_ZERO(0);
  RLEDIT_TILE_ZERO(1);
  RLEDIT_TILE_ZERO(2);
  RLEDIT_TILE_ZERO(3);
  for (int64_t block = 0; block < blocks; ++block, panel += kPanelBytes, tile += kBlockBytes) {
    RLEDIT_TILE_LOAD(4, panel, 64);
    RLEDIT_TILE_LOAD(5, tile, kPairStride);
    RLEDIT_TILE_MULTIPLY(0, 4, 5);
    RLEDIT_TILE_LOAD(6, tile + 64, kPairStride);
    RLEDIT_TILE_MULTIPLY(1, 4, 6);
    RLEDIT_TILE_LOAD(7, tile + 128, kPairStride);
    RLEDIT_TILE_MULTIPLY(2, 4, 7);
    RLEDIT_TILE_LOAD(5, tile + 192, kPairStride);
    RLEDIT_TILE_MULTIPLY(3, 4, 5);
  }
  RLEDIT_TILE_STORE(0, sums, 4 * kTile);
  RLEDIT_TILE_STORE(1, sums + 16, 4 * kTile);
  RLEDIT_TILE_STORE(2, sums + 32, 4 * kTile);
  RLEDIT_TILE_STORE(3, sums + 48, 4 * kTile);
}

#define RLEDIT_SPLIT_MULTIPLY(sum, offset)                  \
  RLEDIT_TILE_LOAD(6, tile + (offset), kPairStride);        \
  RLEDIT_TILE_MULTIPLY(sum, 5, 6);                          \
  RLEDIT_TILE_LOAD(7, tile + rest + (offset), kPairStride); \
  RLEDIT_TILE_MULTIPLY(sum, 4, 7);                          \
  RLEDIT_TILE_MULTIPLY(sum, 4, 6)

// The same of values that are split; `panel_rest` and `rest` lead from the first halves to the second.
void multiply_split_tiles(const char* panel, int64_t panel_rest, const char* tile, int64_t rest, int64_t blocks,
                          float* sums) {
  RLEDIT_TILE_ZERO(0);
  RLEDIT_TILE_ZERO(1);
  RLEDIT_TILE_ZERO(2);
  RLEDIT_TILE_ZERO(3);
  for (int64_t block = 0; block < blocks; ++block, panel += kPanelBytes, tile += kBlockBytes) {
    RLEDIT_TILE_LOAD(4, panel, 64);
    RLEDIT_TILE_LOAD(5, panel + panel_rest, 64);
    RLEDIT_SPLIT_MULTIPLY(0, 0);
    RLEDIT_SPLIT_MULTIPLY(1, 64);
    RLEDIT_SPLIT_MULTIPLY(2, 128);
    RLEDIT_SPLIT_MULTIPLY(3, 192);
  }
  RLEDIT_TILE_STORE(0, sums, 4 * kTile);
  RLEDIT_TILE_STORE(1, sums + 16, 4 * kTile);
  RLEDIT_TILE_STORE(2, sums + 32, 4 * kTile);
  RLEDIT_TILE_STORE(3, sums + 48, 4 * kTile);
}

void multiply_paired(const Product& product) {
  alignas(64) float sums[16 * kTile];
  const char* panel = static_cast<const char*>(product.panel);
  const char* tile = static_cast<const char*>(product.tile);
  const int64_t blocks = padded_depth(product.operands, product.depth) / kPairedDepth;
  if (product.operands == Operands::split)
    multiply_split_tiles(panel, paired_bytes(kMaxRows, product.split_depth), tile,
                         paired_bytes(kTile, product.split_depth), blocks, sums);
  else
    multiply_tiles(panel, tile, blocks, sums);
  for (int j = 0; j < product.rows; ++j) {
    const vfloat bias = broadcast(product.bias != nullptr ? product.bias[j] : 0.0F);
    for (int i = 0; i < kTile; i += kLanes) {
      const int64_t at = int64_t{j} * kTile + i;
      const vfloat start = product.initial != nullptr ? load(product.initial + at) : bias;
      store(product.out + at, activated(load(sums + at) + start, product.nonlinearity));
    }
  }
}

}  // namespace
}  // namespace rledit::cpu::RLEDIT_ISA
