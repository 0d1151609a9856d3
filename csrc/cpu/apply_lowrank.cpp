// apply_lowrank on the CPU: rows are independent, each is read and written once.
#include <algorithm>

#include "kernels.hpp"
#include "parallel.hpp"
#include "rledit/ops.hpp"

namespace rledit {

void apply_lowrank(float* weight, int64_t candidates, int64_t outputs, int64_t inputs, const Factors& factors,
                   EditRule rule) {
  if (factors.rank == 0 || inputs == 0) return;
  const cpu::Kernels& kernels = cpu::kernels();
  const int64_t rows = candidates * outputs;
  // Enough rows an index that handing one out costs nothing beside the work.
  const int64_t block = std::max<int64_t>(1, 65536 / (inputs * (factors.rank + 1)));
  cpu::parallel_for((rows + block - 1) / block, num_threads(), [&](int64_t item, int) {
    for (int64_t row = item * block; row < std::min(rows, (item + 1) * block); ++row)
      kernels.edit_row(weight + row * inputs, factors.left + row * factors.rank,
                       factors.right + row / outputs * factors.rank * inputs, factors.rank, inputs, rule);
  });
}

}  // namespace rledit
