// W and left@right to W'.
#pragma once

#include "kernels.hpp"
#include "vector_math.hpp"

namespace rledit::cpu::RLEDIT_ISA {
namespace {

// weight + s * delta, or weight * (1 + s * delta). One sum for both rules, picked lane by lane: of one sum in
// each branch compilers make the product s * delta ahead of the branch at some places and not at others, and
// only where they do not is it fused with the sum. But a weight must have the same bits in panels and tables of
// any height.
inline vfloat edited(vfloat weight, vfloat delta, EditRule rule) {
  const vint shift = vint{} - static_cast<int32_t>(rule.kind == EditKind::shift);
  const vfloat one = broadcast(1.0F);
  return (select(shift, weight, one) + rule.scale * delta) * select(shift, one, weight);
}

inline float edited(float weight, float delta, EditRule rule) {
  return edited(broadcast(weight), broadcast(delta), rule)[0];
}

// One value of left@right: the scalar twin of the vector loops below, same order of additions.
inline float delta_at(const float* left, const float* right, int64_t rank, int64_t depth, int64_t k) {
  float delta = 0.0F;
  for (int64_t r = 0; r < rank; ++r) delta += left[r] * right[r * depth + k];
  return delta;
}

void edit_row(float* weight, const float* left, const float* right, int64_t rank, int64_t depth,
              EditRule rule) {
  int64_t k = 0;
  for (; k + kLanes <= depth; k += kLanes) {
    vfloat delta = broadcast(0.0F);
    for (int64_t r = 0; r < rank; ++r) delta += left[r] * load(right + r * depth + k);
    store(weight + k, edited(load(weight + k), delta, rule));
  }
  for (; k < depth; ++k) weight[k] = edited(weight[k], delta_at(left, right, rank, depth, k), rule);
}

}  // namespace
}  // namespace rledit::cpu::RLEDIT_ISA
