// Some of the candidates of a call.
#pragma once

#include "rledit/views.hpp"

namespace rledit::cpu {

inline Candidates slice(const Candidates& all, int64_t first, int64_t count, const std::vector<Layer>& layers) {
  Candidates some = all;
  some.count = count;
  for (size_t l = 0; l < layers.size(); ++l) {
    LayerEdit& edit = some.edits[l];
    if (edit.weight != nullptr) edit.weight += first * layers[l].outputs * layers[l].inputs;
    if (edit.factors.rank == 0) continue;
    edit.factors.left += first * layers[l].outputs * edit.factors.rank;
    edit.factors.right += first * edit.factors.rank * layers[l].inputs;
  }
  return some;
}

inline Tally slice(const Tally& all, int64_t first, int64_t groups, int64_t classes) {
  Tally some = all;
  const int64_t offset = first * groups;
  if (some.correct != nullptr) some.correct += offset;
  if (some.predicted != nullptr) some.predicted += offset * classes;
  if (some.confusion != nullptr) some.confusion += offset * classes * classes;
  if (some.loss != nullptr) some.loss += offset;
  if (some.histogram != nullptr) some.histogram += offset * 2 * all.bins;
  if (some.concordant != nullptr) some.concordant += offset * groups;
  if (some.recalled != nullptr) some.recalled += offset;
  if (some.nearest != nullptr) some.nearest += offset;
  if (some.lower_loss != nullptr) some.lower_loss += offset * groups;
  return some;
}

}  // namespace rledit::cpu
