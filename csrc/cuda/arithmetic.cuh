// The functions between layers, and an edited weight.
#pragma once

#include "device.cuh"
#include "rledit/views.hpp"

namespace rledit::cuda {

__device__ inline float activated(float x, Nonlinearity function) {
  switch (function) {
    case Nonlinearity::relu: return x <= 0.0F ? 0.0F : x;  // keeps NaN
    case Nonlinearity::gelu: return 0.5F * x * (1.0F + erff(x * 0.70710678118654752F));
    case Nonlinearity::gelu_tanh:
      return 0.5F * x * (1.0F + tanhf(0.79788456080286536F * (x + 0.044715F * x * x * x)));
    case Nonlinearity::tanh: return tanhf(x);
    case Nonlinearity::silu: return x / (1.0F + expf(-x));
    default: return x;
  }
}

// W + s d, or W * (1 + s d), d being the entry of left @ right.
__device__ inline float edited(float weight, float delta, EditRule rule) {
  return rule.kind == EditKind::shift ? weight + rule.scale * delta : weight * (1.0F + rule.scale * delta);
}

}  // namespace rledit::cuda
