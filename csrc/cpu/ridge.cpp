#include "ridge.hpp"

#include <cmath>

namespace rledit::cpu {
namespace {

// to -= factor * from
void subtract(double* to, const double* from, double factor, int64_t count) {
  for (int64_t i = 0; i < count; ++i) to[i] -= factor * from[i];
}

}  // namespace

// Cholesky's factorization A = U^T U, row by row so that every inner loop runs along a row.
bool solve_positive(double* a, double* b, int64_t size, int64_t columns) {
  for (int64_t k = 0; k < size; ++k) {
    double* row = a + k * size;
    if (!(row[k] > 0.0) || !std::isfinite(row[k])) return false;
    const double scale = 1.0 / std::sqrt(row[k]);
    for (int64_t j = k; j < size; ++j) row[j] *= scale;
    for (int64_t i = k + 1; i < size; ++i) subtract(a + i * size + i, row + i, row[i], size - i);
    // U^T Y = B on the way.
    for (int64_t c = 0; c < columns; ++c) b[k * columns + c] *= scale;
    for (int64_t i = k + 1; i < size; ++i) subtract(b + i * columns, b + k * columns, row[i], columns);
  }
  for (int64_t k = size - 1; k >= 0; --k) {  // U X = Y
    const double* row = a + k * size;
    for (int64_t j = k + 1; j < size; ++j) subtract(b + k * columns, b + j * columns, row[j], columns);
    for (int64_t c = 0; c < columns; ++c) b[k * columns + c] /= row[k];
  }
  return true;
}

}  // namespace rledit::cpu
