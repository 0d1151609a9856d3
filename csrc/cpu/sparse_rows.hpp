// Activations that are mostly zeros, such as bags of words: of each sample only what is not zero.
#pragma once

#include <cstdint>
#include <vector>

#include "counting.hpp"

namespace rledit::cpu {

class SparseRows {
 public:
  SparseRows() = default;
  // Of activations [samples, inputs], in the order of the packed samples. Stays empty unless so few are not
  // zero that skipping the others pays.
  SparseRows(const float* activations, const PackedSamples& samples, int64_t inputs);

  bool empty() const { return starts_.empty(); }
  int64_t count() const { return static_cast<int64_t>(values_.size()); }  // of all that is not zero
  int64_t bytes() const;
  // Of a tile; the caller fills in all else.
  SparseProduct tile(int64_t index) const;

 private:
  std::vector<int64_t> starts_;  // [tiles * kTile + 1], into the others
  std::vector<int32_t> inputs_;
  std::vector<float> values_;
};

}  // namespace rledit::cpu
