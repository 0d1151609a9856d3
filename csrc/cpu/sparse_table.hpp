// Weights side by side by input, as sums over what is not zero in a sample want them: right factors of many
// candidates, or edited weights.
#pragma once

#include <vector>

#include "memory.hpp"
#include "sparse_rows.hpp"

namespace rledit::cpu {

// A matrix [rows, inputs] as tables [inputs][columns] of some of its rows each, so that the part of it that
// many samples want one after the other is small.
class SparseTable {
 public:
  SparseTable(const Kernels& kernels, int64_t rows, int64_t inputs);

  static int64_t bytes(int64_t rows, int64_t inputs);

  // Rows `row` to `row` + `count`; the pointers of `source` are those of the first.
  void pack(PanelSource source, int64_t row, int64_t count);
  // After the last of them.
  void find_infinite();

  // What a product with some successive tiles needs beside the table.
  struct Tiles {
    const SparseRows& nonzero;
    const float* values;  // [count][inputs][kTile], zeros and all
    int64_t first;
    int64_t count;
  };
  // out[tile][rows][kTile] = nonlinearity(bias + matrix @ tile), for the first `rows` rows; bias may be
  // nullptr. A tile's outputs begin `stride` floats behind those of the one before. The bits are those of
  // Kernels::multiply, but for the sign of zeros.
  void multiply(const Tiles& tiles, const float* bias, Nonlinearity nonlinearity, int64_t rows, float* out,
                int64_t stride) const;

 private:
  int columns_of(int64_t row) const;  // of the table that it is in
  float* table_of(int64_t row) const;

  const Kernels& kernels_;
  int64_t rows_;
  int64_t inputs_;
  Buffer memory_;
  std::vector<std::vector<int32_t>> infinite_;  // per table, its inputs with a value that is not finite
};

}  // namespace rledit::cpu
