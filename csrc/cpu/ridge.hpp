// Ridge regression from moments.
#pragma once

#include <cstdint>

namespace rledit::cpu {

// Solves A X = B in place: B [size, columns] becomes X. Of the symmetric A [size, size] only the upper triangle
// is read, and overwritten by its factor. False where A is not positive definite, or not finite.
bool solve_positive(double* a, double* b, int64_t size, int64_t columns);

}  // namespace rledit::cpu
