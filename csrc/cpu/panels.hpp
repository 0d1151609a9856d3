// All row panels of one matrix, one behind the other.
#pragma once

#include <algorithm>

#include "kernels.hpp"
#include "memory.hpp"

namespace rledit::cpu {

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

  // out[rows][kTile] = nonlinearity(start + matrix @ tile), for the first `rows` rows. A deep tile goes through
  // all panels part by part: the part stays in cache, where the whole tile would be fetched for every panel.
  void multiply(const Product& whole, int64_t rows) const {
    const int64_t part = kPartBytes / tile_offset(operands_, 1) / (operands_ == Operands::split ? 2 : 1);
    const bool in_parts = depth_ > part + part / 2;  // not by rows: sums must not depend on the batch
    const int64_t step = in_parts ? part : depth_;
    for (int64_t k = 0; k < depth_; k += step) {
      Product product = whole;
      product.operands = operands_;
      product.split_depth = depth_;
      product.depth = std::min(step, depth_ - k);
      product.tile = static_cast<const char*>(whole.tile) + tile_offset(operands_, k);
      if (k + step < depth_) product.nonlinearity = Nonlinearity::identity;
      for (int64_t row = 0; row < rows; row += kernels_.panel_rows) {
        product.rows = static_cast<int>(std::min<int64_t>(kernels_.panel_rows, rows - row));
        product.panel = at(row) + panel_offset(operands_, stored_rows(kernels_, operands_, product.rows), k);
        product.out = whole.out + row * kTile;
        if (whole.initial != nullptr) product.initial = whole.initial + row * kTile;
        if (whole.bias != nullptr) product.bias = whole.bias + row;
        if (k > 0) product.initial = product.out;
        kernels_.multiply(product);
      }
    }
  }
  void multiply(const Product& product) const { multiply(product, rows_); }

 private:
  static constexpr int64_t kPartBytes = int64_t{128} << 10;  // of a tile: a share of the L2 cache

  char* at(int64_t row) const { return memory_.get() + row / kernels_.panel_rows * panel_bytes_; }

  const Kernels& kernels_;
  Operands operands_;
  int64_t rows_;
  int64_t depth_;
  int64_t panel_bytes_;
  Buffer memory_;
};

}  // namespace rledit::cpu
