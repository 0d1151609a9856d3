#include "counting.hpp"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace rledit::cpu {

PackedSamples::PackedSamples(const Samples& samples, int64_t classes, const uint8_t* fit)
    : count_(samples.count), groups_(samples.group_count), tiles_((samples.count + kTile - 1) / kTile) {
  std::vector<int32_t> labels(count_);
  for (int64_t i = 0; i < count_; ++i) {
    const int64_t label = samples.labels[i];
    if (label < 0 || label >= classes)
      throw std::invalid_argument("labels: expected values in 0.." + std::to_string(classes - 1) + ", got " +
                                  std::to_string(label) + " at index " + std::to_string(i));
    labels[i] = static_cast<int32_t>(label);
  }
  if (fit != nullptr) reorder(labels, fit);
  labels_.resize(slots(), 0);
  membership_.resize(slots(), 0);
  planes_.resize(tiles_ * groups_, 0);
  positives_.resize(tiles_, 0);
  for (int64_t slot = 0; slot < slots(); ++slot) {
    const int64_t i = sample(slot);
    if (i < 0) continue;
    const uint64_t bit = uint64_t{1} << (slot % kTile);
    labels_[slot] = labels[i];
    if (labels[i] == 1) positives_[slot / kTile] |= bit;
    for (int64_t g = 0; g < groups_; ++g) {
      if (samples.groups[g * count_ + i] == 0) continue;
      membership_[slot] |= uint64_t{1} << g;
      planes_[slot / kTile * groups_ + g] |= bit;
    }
  }
}

void PackedSamples::reorder(const std::vector<int32_t>& labels, const uint8_t* fit) {
  std::vector<int32_t> judged;
  for (int64_t i = 0; i < count_; ++i) (fit[i] != 0 ? order_ : judged).push_back(static_cast<int32_t>(i));
  fit_count_ = static_cast<int64_t>(order_.size());
  std::stable_sort(order_.begin(), order_.end(), [&](int32_t a, int32_t b) { return labels[a] < labels[b]; });
  order_.resize(fit_tiles() * kTile, -1);
  order_.insert(order_.end(), judged.begin(), judged.end());
  tiles_ = (static_cast<int64_t>(order_.size()) + kTile - 1) / kTile;
  order_.resize(slots(), -1);
}

int64_t PackedSamples::sample(int64_t slot) const {
  if (reordered()) return order_[slot];
  return slot < count_ ? slot : -1;
}

const float* PackedSamples::rows(const float* values, int64_t depth, int64_t tile,
                                 std::vector<float>& memory) const {
  if (!reordered()) return values + tile * kTile * depth;
  memory.resize(kTile * depth);
  for (int i = 0; i < valid(tile); ++i) {
    const float* row = values + order_[tile * kTile + i] * depth;
    std::copy(row, row + depth, memory.data() + i * depth);
  }
  return memory.data();
}

int64_t PackedSamples::bytes() const {
  return static_cast<int64_t>(labels_.size() * sizeof(int32_t) + membership_.size() * sizeof(uint64_t) +
                              planes_.size() * sizeof(uint64_t) + positives_.size() * sizeof(uint64_t) +
                              order_.size() * sizeof(int32_t));
}

int PackedSamples::valid(int64_t tile) const {
  const bool fits = tile < fit_tiles();
  const int64_t left = fits ? fit_count_ - tile * kTile : count_ - fit_count_ - (tile - fit_tiles()) * kTile;
  return static_cast<int>(std::min<int64_t>(kTile, left));
}

TileSamples PackedSamples::tile(int64_t index) const {
  return {labels_.data() + index * kTile, membership_.data() + index * kTile, planes_.data() + index * groups_,
          positives_[index], groups_};
}

LossPartials::LossPartials(const Tally& tally, int64_t candidates, int64_t groups, int64_t chunks, bool shared)
    : candidates_(candidates), groups_(groups), chunks_(chunks), wanted_(tally.loss != nullptr) {
  if (wanted_ && shared) sums_.assign(candidates * chunks * groups, 0.0);
}

double* LossPartials::at(int64_t candidate, int64_t chunk, double* own) {
  if (!wanted_) return nullptr;
  if (!sums_.empty()) return sums_.data() + (candidate * chunks_ + chunk) * groups_;
  std::fill(own, own + groups_, 0.0);
  return own;
}

void LossPartials::add_chunk(const Tally& tally, int64_t candidate, const double* sums) const {
  if (!wanted_ || !sums_.empty()) return;
  for (int64_t g = 0; g < groups_; ++g) tally.loss[candidate * groups_ + g] += sums[g];
}

void LossPartials::add_all(const Tally& tally, int64_t chunks) {
  if (sums_.empty()) return;
  for (int64_t n = 0; n < candidates_; ++n)
    for (int64_t chunk = 0; chunk < chunks; ++chunk)
      for (int64_t g = 0; g < groups_; ++g)
        tally.loss[n * groups_ + g] += sums_[(n * chunks_ + chunk) * groups_ + g];
  std::fill(sums_.begin(), sums_.end(), 0.0);
}

TileTally tile_tally(const Tally& tally, int64_t candidate, int64_t groups, int64_t classes, double* loss,
                     bool shared) {
  const int64_t n = candidate;
  TileTally out{};
  if (tally.correct != nullptr) out.correct = tally.correct + n * groups;
  if (tally.predicted != nullptr) out.predicted = tally.predicted + n * groups * classes;
  if (tally.confusion != nullptr) out.confusion = tally.confusion + n * groups * classes * classes;
  out.loss = loss;
  out.shared = shared;
  return out;
}

Schedule::Schedule(int64_t candidates, int64_t chunks, int threads, int64_t stack) {
  // Sixteen blocks a thread: the last is what a thread that started late or was held up makes all the others
  // wait for. More than 32 candidates a block gain nothing, because by then the chunk's trip from memory is
  // paid for.
  block = std::clamp<int64_t>(candidates / (16 * threads), 1, 32);
  block = (block + stack - 1) / stack * stack;
  blocks = (candidates + block - 1) / block;
  // Few blocks are cut into parts of the samples for the same reason, though counters are then shared.
  const int64_t wanted = threads == 1 ? 1 : int64_t{8} * threads;
  parts = std::clamp<int64_t>((wanted + blocks - 1) / blocks, 1, std::max<int64_t>(chunks, 1));
}

}  // namespace rledit::cpu
