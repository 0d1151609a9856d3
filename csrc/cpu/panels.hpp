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
      source.weight = whole.weight + row * depth_;
      if (source.rank > 0) source.left = whole.left + row * source.rank;
      kernels_.pack_panel(source, at(row));
    }
  }
  void pack(const PanelSource& source) { pack(source, rows_); }

  // out[rows][kTile] = nonlinearity(start + matrix @ tile), for the first `rows` rows
  void multiply(Product product, int64_t rows) const {
    product.depth = depth_;
    product.operands = operands_;
    const Product whole = product;
    for (int64_t row = 0; row < rows; row += kernels_.panel_rows) {
      product.panel = at(row);
      product.rows = static_cast<int>(std::min<int64_t>(kernels_.panel_rows, rows - row));
      product.out = whole.out + row * kTile;
      if (whole.initial != nullptr) product.initial = whole.initial + row * kTile;
      if (whole.bias != nullptr) product.bias = whole.bias + row;
      kernels_.multiply(product);
    }
  }
  void multiply(const Product& product) const { multiply(product, rows_); }

 private:
  char* at(int64_t row) const { return memory_.get() + row / kernels_.panel_rows * panel_bytes_; }

  const Kernels& kernels_;
  Operands operands_;
  int64_t rows_;
  int64_t depth_;
  int64_t panel_bytes_;
  Buffer memory_;
};

}  // namespace rledit::cpu
