// The cost model: which way to compute a candidate's edited layers.
//
// Unit: one multiply-add of one weight with one sample, times 64, a tile's worth. For one tile of samples and
// one candidate, a layer O x I with rank R costs
//   shared_product  R*I + R*O + kCorrection*O   X right^T, then its product with left added to what the
//                                               unedited layer gives. That is made once for all candidates,
//                                               and has no say: a candidate's logits must not round
//                                               differently when it is scored among others.
//   formed          O*I + O*I*(R + kForming) / (64 * tiles of a chunk)
//                                               the product, and its share of forming W' for each chunk
//   formed_once     the same with the tiles of a span; but then a candidate streams all activations of the
//                                               span, where formed candidates share a chunk in cache.
// Where activations are mostly zeros, z of a sample's inputs are not and each counts for kFromAnywhere:
//   shared_product  kFromAnywhere*R*z + R*O + kCorrection*O
//   formed_once     kFromAnywhere*O*z + O*I*(R + kForming) / (64 * tiles of a span)
// For mask, sum_r ((X * right_r) W^T) * left_r takes R products where forming W' takes one: at R = 1 it saves
// only the forming, 4 / (64 * tiles of a chunk) of the product, under 1%, and pays scaled copies of X. It is
// therefore never chosen, and not built.
#pragma once

#include "rledit/views.hpp"

namespace rledit::cpu {

constexpr double kCorrection = 6.0;  // loading the unedited output and storing the edited one
constexpr double kForming = 4.0;     // loading, editing, converting and storing one weight
constexpr double kFromAnywhere =
    4.0;  // a multiply-add with weights that lie anywhere, in those one after the other
constexpr double kFormOnce = 0.0625;  // share of the product beyond which forming per chunk is too dear

inline double cost_of_correction(int64_t outputs, int64_t inputs, int64_t rank) {
  return static_cast<double>(rank) * static_cast<double>(inputs + outputs) +
         kCorrection * static_cast<double>(outputs);
}

// `tiles`: over which forming the weights is spread.
inline double cost_of_forming(int64_t outputs, int64_t inputs, int64_t rank, int64_t tiles) {
  const double weights = static_cast<double>(outputs) * static_cast<double>(inputs);
  return weights + weights * (static_cast<double>(rank) + kForming) / static_cast<double>(64 * tiles);
}

// The algebra of a candidate whose first layer has factors and meets `nonzero` values of a sample that are not
// zero.
inline Algebra choose_sparse_algebra(EditKind kind, int64_t outputs, int64_t inputs, int64_t rank,
                                     double nonzero, int64_t all_tiles) {
  const double each = kFromAnywhere * nonzero;
  const double once = cost_of_forming(outputs, inputs, rank, all_tiles) -
                      static_cast<double>(outputs) * (static_cast<double>(inputs) - each);
  const double correction = cost_of_correction(outputs, 0, rank) + each * static_cast<double>(rank);
  return kind == EditKind::shift && correction < once ? Algebra::shared_product : Algebra::formed_once;
}

// The algebra of a candidate whose first layer has factors, for chunks of `tiles` out of `all_tiles`.
inline Algebra choose_algebra(EditKind kind, int64_t outputs, int64_t inputs, int64_t rank, int64_t tiles,
                              int64_t all_tiles) {
  const double share = (static_cast<double>(rank) + kForming) / static_cast<double>(64 * tiles);
  const bool once = share > kFormOnce;
  const double forming = cost_of_forming(outputs, inputs, rank, once ? all_tiles : tiles);
  if (kind == EditKind::shift && cost_of_correction(outputs, inputs, rank) < forming)
    return Algebra::shared_product;
  return once ? Algebra::formed_once : Algebra::formed;
}

}  // namespace rledit::cpu
