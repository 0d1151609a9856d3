// apply_lowrank_: expansion and application in one pass over the weights, each read once and written once.
#include "arithmetic.cuh"
#include "ops.hpp"
#include "products.cuh"

namespace rledit::cuda {
namespace {

constexpr int64_t kBlocks = 32 * kMostBlocks;

__global__ void __launch_bounds__(kThreads, 8)
    apply_lowrank_kernel(float* weight, const float* left, const float* right, int64_t candidates, int outputs,
                         int inputs, int rank, EditRule rule) {
  LeftFactors& factors = *reinterpret_cast<LeftFactors*>(dynamic_shared());
  const int64_t across = (inputs + kDepth - 1) / kDepth, down = (outputs + kOutputs - 1) / kOutputs;
  for (int64_t item = blockIdx.x; item < candidates * down * across; item += gridDim.x) {
    const int64_t n = item / (down * across);
    const int output = static_cast<int>(item / across % down) * kOutputs;
    const int input = static_cast<int>(item % across) * kDepth;
    float* own = weight + n * outputs * inputs;
    const EditedWeights layer{own, left + n * outputs * rank, right + n * rank * inputs, outputs, inputs, rank,
                              rule};
    keep(layer, output, factors);
    __syncthreads();
    form(layer, factors, output, input, [&](int row, int column, float value) {
      if (output + row < outputs && input + column < inputs)
        own[static_cast<int64_t>(output + row) * inputs + input + column] = value;
    });
    __syncthreads();  // before the factors are overwritten
  }
}

}  // namespace

cudaError_t apply_lowrank(float* weight, const float* left, const float* right, int64_t candidates, int outputs,
                          int inputs, int rank, EditRule rule, cudaStream_t stream) {
  const int64_t items = candidates * ((inputs + kDepth - 1) / kDepth) * ((outputs + kOutputs - 1) / kOutputs);
  if (items == 0) return cudaSuccess;
  const int blocks = static_cast<int>(items < kBlocks ? items : kBlocks);
  RLEDIT_LAUNCH(apply_lowrank_kernel, blocks, sizeof(LeftFactors), stream, weight, left, right, candidates,
                outputs, inputs, rank, rule);
  return cudaGetLastError();
}

}  // namespace rledit::cuda
