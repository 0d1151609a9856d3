// All row panels of one matrix, one behind the other.
#pragma once

#include <algorithm>

#include "layouts.hpp"
#include "memory.hpp"

namespace rledit::cpu {

// How many rows a panel of so many takes.
inline int64_t stored_rows(const Kernels& kernels, Operands operands, int64_t rows) {
  return is_paired(operands) && kernels.whole_panels ? kernels.panel_rows : rows;
}

inline int64_t panel_bytes(const Kernels& kernels, Operands operands, int64_t rows, int64_t depth) {
  if (!is_paired(operands)) return padded_depth(operands, depth) * rows * int64_t{sizeof(float)};
  return paired_bytes(stored_rows(kernels, operands, rows), depth) * (operands == Operands::split ? 2 : 1);
}

// How much of the depth is multiplied at a time: what a tile has of it stays in cache.
inline int64_t depth_step(Operands operands, int64_t depth) {
  constexpr int64_t kPartBytes = int64_t{128} << 10;  // of a tile: a share of the L2 cache
  const int64_t part = kPartBytes / tile_offset(operands, 1) / (operands == Operands::split ? 2 : 1);
  return depth > part + part / 2 ? part : depth;  // by nothing else: sums must not depend on the batch
}

// One panel with one tile, with the bits that Panels::multiply gives. `whole` has all but depths. Tiles of AMX
// sum each part from zero, so that parts tell; other products go on from the sums of the part before.
inline void multiply_panel(const Kernels& kernels, const Product& whole, int64_t depth) {
  const int64_t step = is_paired(whole.operands) ? depth_step(whole.operands, depth) : depth;
  const int64_t stored = stored_rows(kernels, whole.operands, whole.rows);
  for (int64_t k = 0; k < depth; k += step) {
    Product product = whole;
    product.split_depth = depth;
    product.depth = std::min(step, depth - k);
    product.tile = static_cast<const char*>(whole.tile) + tile_offset(whole.operands, k);
    product.panel = static_cast<const char*>(whole.panel) + panel_offset(whole.operands, stored, k);
    if (k > 0) product.initial = whole.out;
    if (k + step < depth) product.nonlinearity = Nonlinearity::identity;
    kernels.multiply(product);
  }
}

class Panels {
 public:
  Panels(const Kernels& kernels, Operands operands, int64_t rows, int64_t depth)
      : kernels_(kernels),
        operands_(operands),
        rows_(rows),
        depth_(depth),
        panel_bytes_(panel_bytes(kernels, operands, kernels.panel_rows, depth)),
        memory_(allocate(bytes())) {}

  int64_t bytes() const { return (rows_ + kernels_.panel_rows - 1) / kernels_.panel_rows * panel_bytes_; }

  // Packs the first `rows` rows of the matrix that `source` describes; its pointers are those of row 0.
  void pack(PanelSource source, int64_t rows) {
    source.depth = depth_;
    source.operands = operands_;
    const PanelSource whole = source;
    for (int64_t row = 0; row < rows; row += kernels_.panel_rows) {
      source.rows = static_cast<int>(std::min<int64_t>(kernels_.panel_rows, rows - row));
      source.stored_rows = stored_rows(kernels_, operands_, source.rows);
      source.weight = whole.weight + row * depth_;
      if (source.rank > 0) source.left = whole.left + row * source.rank;
      kernels_.pack_panel(source, at(row));
    }
  }
  void pack(const PanelSource& source) { pack(source, rows_); }

  // out[rows][kTile] = nonlinearity(start + matrix @ tile), for the first `rows` rows.
  void multiply(const Product& product, int64_t rows) const { multiply(product, rows, 1); }
  void multiply(const Product& product) const { multiply(product, rows_, 1); }

  // The same for some tiles, one behind the other as their outputs are. Part by part of the depth: what the
  // tiles have of it stays in cache, where the whole tiles would be fetched for every panel. And each panel
  // with all tiles: one tile alone does not have enough to multiply for the time that a panel takes to arrive.
  void multiply_tiles(const Product& product, int64_t tiles) const { multiply(product, rows_, tiles); }

  // The first kernels.panel_rows rows.
  const char* panel() const { return memory_.get(); }

 private:
  void multiply(const Product& whole, int64_t rows, int64_t tiles) const {
    const int64_t step = depth_step(operands_, depth_);
    const bool in_parts = step < depth_;
    const int64_t bytes = tile_bytes(operands_, depth_);
    for (int64_t k = 0; k < depth_; k += step) {
      Product product = whole;
      product.operands = operands_;
      product.split_depth = depth_;
      product.depth = std::min(step, depth_ - k);
      if (k + step < depth_) product.nonlinearity = Nonlinearity::identity;
      for (int64_t row = 0; row < rows; row += kernels_.panel_rows) {
        product.rows = static_cast<int>(std::min<int64_t>(kernels_.panel_rows, rows - row));
        product.panel = at(row) + panel_offset(operands_, stored_rows(kernels_, operands_, product.rows), k);
        if (whole.bias != nullptr) product.bias = whole.bias + row;
        // What comes next is fetched meanwhile: of a large matrix a panel lies far from a core, and with the
        // end of each the CPU's own prefetching starts anew.
        const char* ahead =
            row + kernels_.panel_rows < rows ? static_cast<const char*>(product.panel) + panel_bytes_ : nullptr;
        const int64_t share = panel_offset(operands_, product.rows, product.depth) / tiles;
        for (int64_t t = 0; t < tiles; ++t) {
          if (in_parts && ahead != nullptr) prefetch(ahead + t * share, share);
          if (k > 0 && t + 1 < tiles)
            prefetch(whole.out + ((t + 1) * rows + row) * kTile, product.rows * kTile * 4);
          product.tile = static_cast<const char*>(whole.tile) + t * bytes + tile_offset(operands_, k);
          product.out = whole.out + (t * rows + row) * kTile;
          if (whole.initial != nullptr) product.initial = whole.initial + (t * rows + row) * kTile;
          if (k > 0) product.initial = product.out;
          kernels_.multiply(product);
        }
      }
    }
  }

  static void prefetch(const void* from, int64_t bytes) {
    for (int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(static_cast<const char*>(from) + i);
  }

  char* at(int64_t row) const { return memory_.get() + row / kernels_.panel_rows * panel_bytes_; }

  const Kernels& kernels_;
  Operands operands_;
  int64_t rows_;
  int64_t depth_;
  int64_t panel_bytes_;
  Buffer memory_;
};

}  // namespace rledit::cpu
