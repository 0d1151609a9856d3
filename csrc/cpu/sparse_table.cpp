#include "sparse_table.hpp"

#include <algorithm>
#include <cstring>

namespace rledit::cpu {
namespace {

int64_t padded_columns(int64_t rows) { return (rows + kSparseColumns - 1) / kSparseColumns * kSparseColumns; }

// Bit by bit, which compilers make vectors of where floats compared one by one they do not.
bool any_infinite(const float* values, int64_t count) {
  uint32_t found = 0;
  for (int64_t k = 0; k < count; ++k) {
    uint32_t bits;
    std::memcpy(&bits, values + k, sizeof(bits));
    found |= static_cast<uint32_t>((bits & 0x7f800000U) == 0x7f800000U);
  }
  return found != 0;
}

}  // namespace

SparseTable::SparseTable(const Kernels& kernels, int64_t rows, int64_t inputs)
    : kernels_(kernels),
      rows_(rows),
      inputs_(inputs),
      memory_(allocate(bytes(rows, inputs))),
      infinite_((rows + kMostSparseColumns - 1) / kMostSparseColumns) {
  std::memset(memory_.get(), 0, bytes(rows, inputs));  // nobody writes the columns behind the last row
}

int64_t SparseTable::bytes(int64_t rows, int64_t inputs) {
  return padded_columns(rows) * inputs * int64_t{sizeof(float)};
}

int SparseTable::columns_of(int64_t row) const {
  const int64_t first = row / kMostSparseColumns * kMostSparseColumns;
  return static_cast<int>(std::min<int64_t>(padded_columns(rows_ - first), kMostSparseColumns));
}

float* SparseTable::table_of(int64_t row) const {
  const int64_t first = row / kMostSparseColumns * kMostSparseColumns;
  return reinterpret_cast<float*>(memory_.get()) + first * inputs_;
}

void SparseTable::pack(PanelSource source, int64_t row, int64_t count) {
  source.depth = inputs_;
  source.operands = Operands::float32;
  for (const int64_t last = row + count; row < last; row += source.rows) {
    const int64_t column = row % kMostSparseColumns;
    source.rows = static_cast<int>(std::min(last - row, kMostSparseColumns - column));
    kernels_.pack_table(source, columns_of(row), table_of(row) + column);
    source.weight += source.rows * inputs_;
    if (source.rank > 0) source.left += source.rows * source.rank;
  }
}

void SparseTable::find_infinite() {
  for (int64_t row = 0; row < rows_; row += kMostSparseColumns) {
    std::vector<int32_t>& found = infinite_[row / kMostSparseColumns];
    found.clear();
    const int columns = columns_of(row);
    const float* table = table_of(row);
    if (!any_infinite(table, inputs_ * columns)) continue;
    for (int64_t i = 0; i < inputs_; ++i)
      if (any_infinite(table + i * columns, columns)) found.push_back(static_cast<int32_t>(i));
  }
}

void SparseTable::multiply(const Tiles& tiles, const float* bias, Nonlinearity nonlinearity, int64_t rows,
                           float* out, int64_t stride) const {
  for (int64_t row = 0; row < rows; row += kMostSparseColumns) {
    const std::vector<int32_t>& infinite = infinite_[row / kMostSparseColumns];
    for (int64_t t = 0; t < tiles.count; ++t) {
      SparseProduct product = tiles.nonzero.tile(tiles.first + t);
      product.table = table_of(row);
      product.tile = tiles.values + t * inputs_ * kTile;
      product.infinite = infinite.data();
      product.infinite_count = static_cast<int64_t>(infinite.size());
      product.bias = bias != nullptr ? bias + row : nullptr;
      product.out = out + t * stride + row * kTile;
      product.columns = columns_of(row);
      product.rows = static_cast<int>(std::min<int64_t>(rows - row, kMostSparseColumns));
      product.nonlinearity = nonlinearity;
      kernels_.multiply_sparse(product);
    }
  }
}

}  // namespace rledit::cpu
