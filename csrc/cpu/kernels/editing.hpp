// W and left@right to W'.
#pragma once

#include "kernels.hpp"
#include "vector_math.hpp"

namespace rledit::cpu::RLEDIT_ISA {
namespace {

inline float edited(float weight, float delta, World world, float scale) {
  return world == World::shift ? weight + scale * delta : weight * (1.0F + scale * delta);
}

inline vfloat edited(vfloat weight, vfloat delta, World world, float scale) {
  return world == World::shift ? weight + scale * delta : weight * (1.0F + scale * delta);
}

// One value of left@right: the scalar twin of the vector loops below, same order of additions.
inline float delta_at(const float* left, const float* right, int64_t rank, int64_t depth, int64_t k) {
  float delta = 0.0F;
  for (int64_t r = 0; r < rank; ++r) delta += left[r] * right[r * depth + k];
  return delta;
}

void edit_row(float* weight, const float* left, const float* right, int64_t rank, int64_t depth, World world,
              float scale) {
  int64_t k = 0;
  for (; k + kLanes <= depth; k += kLanes) {
    vfloat delta = broadcast(0.0F);
    for (int64_t r = 0; r < rank; ++r) delta += left[r] * load(right + r * depth + k);
    store(weight + k, edited(load(weight + k), delta, world, scale));
  }
  for (; k < depth; ++k) weight[k] = edited(weight[k], delta_at(left, right, rank, depth, k), world, scale);
}

}  // namespace
}  // namespace rledit::cpu::RLEDIT_ISA
