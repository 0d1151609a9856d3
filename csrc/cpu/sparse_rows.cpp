#include "sparse_rows.hpp"

#include <algorithm>
#include <limits>

namespace rledit::cpu {
namespace {

// One value that is not zero costs as much as so many of a dense product: its row of the table is fetched from
// anywhere, and used once.
constexpr int64_t kCost = 16;
constexpr int64_t kLeastInputs = 128;  // fewer are passed over in no time

}  // namespace

SparseRows::SparseRows(const float* activations, const PackedSamples& samples, int64_t inputs) {
  if (inputs < kLeastInputs || inputs > std::numeric_limits<int32_t>::max()) return;
  // Counted first: lists that grow, and are dropped where there are too many, would be the peak of memory.
  const int64_t all = samples.count() * inputs;
  const int64_t most = all / kCost;
  int64_t count = 0;
  for (int64_t k = 0; k < all && count <= most; ++k)
    if (activations[k] != 0.0F) ++count;  // as is NaN
  if (count > most) return;
  inputs_.reserve(count + kSparseAhead);
  values_.reserve(count);
  starts_.reserve(samples.slots() + 1);
  starts_.push_back(0);
  for (int64_t slot = 0; slot < samples.slots(); ++slot) {
    const int64_t s = samples.sample(slot);
    const float* row = activations + std::max<int64_t>(s, 0) * inputs;
    for (int64_t i = 0; s >= 0 && i < inputs; ++i) {
      if (row[i] == 0.0F) continue;
      inputs_.push_back(static_cast<int32_t>(i));
      values_.push_back(row[i]);
    }
    starts_.push_back(static_cast<int64_t>(values_.size()));
  }
  inputs_.insert(inputs_.end(), kSparseAhead, 0);
}

int64_t SparseRows::bytes() const {
  return static_cast<int64_t>(starts_.size() * sizeof(int64_t) + inputs_.size() * sizeof(int32_t) +
                              values_.size() * sizeof(float));
}

SparseProduct SparseRows::tile(int64_t index) const {
  SparseProduct product{};
  product.starts = starts_.data() + index * kTile;
  product.inputs = inputs_.data();
  product.values = values_.data();
  return product;
}

}  // namespace rledit::cpu
