#include "feature_probe.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>

#include "ridge.hpp"

namespace rledit::cpu {
namespace {

constexpr float kLargest = 1099511627776.0F;      // 2^40, of a feature
constexpr float kSmallest = 9.094947017729e-13F;  // 2^-40, of the largest difference, if it is not 0
// Of a weight, so that no score of features within the limit leaves float32.
constexpr double kLargestWeight = 1152921504606846976.0;  // 2^60
constexpr float kNever = -std::numeric_limits<float>::max();

float* floats(Buffer& buffer) { return reinterpret_cast<float*>(buffer.get()); }

}  // namespace

ProbeSamples::ProbeSamples(const PackedSamples& samples, int64_t classes, double ridge)
    : samples_(samples), ridge_(ridge), sizes_(classes, 0.0), judged_(samples.groups(), 0) {
  if (samples.count() > 0 && samples.fit_count() == 0)
    throw std::invalid_argument("fit: expected at least one of " + std::to_string(samples.count()) +
                                " samples to learn from, got none");
  starts_.push_back(0);
  for (int64_t t = 0; t < samples.fit_tiles(); ++t) {
    const int32_t* labels = samples.tile(t).labels;
    for (int32_t i = 0; i < samples.valid(t); ++i) {
      sizes_[labels[i]] += 1.0;
      if (i == 0 || labels[i] != labels[i - 1]) runs_.push_back({labels[i], i, i});
      runs_.back().last = i + 1;
    }
    starts_.push_back(static_cast<int64_t>(runs_.size()));
  }
  for (int64_t t = samples.fit_tiles(); t < samples.tiles(); ++t)
    for (int64_t g = 0; g < samples.groups(); ++g)
      judged_[g] += __builtin_popcountll(samples.tile(t).planes[g]);
}

ProbeScratch::ProbeScratch(const Kernels& kernels, const ProbeSamples& shared, int64_t width, int64_t tiles)
    : centered(allocate(tiles * (width + kMomentsPadding) * kTile * int64_t{sizeof(float)})),
      scores(allocate(2 * shared.classes() * kTile * int64_t{sizeof(float)})),
      panels(kernels, Operands::float32, 2 * shared.classes(), width) {
  for (int64_t t = 0; t < tiles; ++t) {
    float* padding = floats(centered) + (t * (width + kMomentsPadding) + width) * kTile;
    std::fill(padding, padding + kMomentsPadding * kTile, 0.0F);
  }
}

FeatureProbe::FeatureProbe(const Kernels& kernels, const ProbeSamples& shared, int64_t width, bool ridge,
                           bool means)
    : kernels_(kernels),
      shared_(shared),
      width_(width),
      ridge_(ridge),
      means_(means),
      pivot_(width),
      moments_(ridge ? width * width : 0),
      sums_(width * shared.classes()),
      weights_(rows() * width),
      start_(rows()) {}

int64_t FeatureProbe::bytes(const ProbeSamples& shared, int64_t width) {
  return width * (width + shared.classes()) * int64_t{sizeof(double)} +
         2 * shared.classes() * width * int64_t{sizeof(float)};
}

void FeatureProbe::learn(int64_t tile, int64_t count, const float* features, ProbeScratch& scratch) {
  if (tile == 0)
    for (int64_t k = 0; k < width_; ++k) pivot_[k] = features[k * kTile];
  const int64_t stride = (width_ + kMomentsPadding) * kTile;
  for (int64_t t = 0; t < count; ++t) {
    float* centered = floats(scratch.centered) + t * stride;
    const Extent extent = kernels_.center({features + t * width_ * kTile, pivot_.data(), centered, width_,
                                           shared_.samples().valid(tile + t), kLargest});
    within_ = within_ && extent.within;
    largest_ = std::max(largest_, extent.largest);
    if (!within_) return;  // nothing can be learned any more
    kernels_.add_runs(centered, width_, shared_.runs(tile + t), shared_.run_count(tile + t), classes(),
                      sums_.data());
  }
  if (ridge_) kernels_.add_moments(floats(scratch.centered), count, width_, moments_.data());
}

void FeatureProbe::solve() {
  within_ = within_ && (largest_ == 0.0F || largest_ >= kSmallest);
  if (!within_ || shared_.samples().fit_count() == 0) return;
  const double count = static_cast<double>(shared_.samples().fit_count());
  std::vector<double> mean(width_);  // less the pivot
  for (int64_t k = 0; k < width_; ++k) {
    for (int64_t c = 0; c < classes(); ++c) mean[k] += sums_[k * classes() + c];
    mean[k] /= count;
  }
  // First the means: solving for the ridge overwrites the sums.
  if (means_) means_solved_ = solve_means(mean, ridge_ ? classes() : 0);
  if (ridge_) ridge_solved_ = solve_ridge(mean);
}

// Scores h.(m_c - m) - |m_c - m|^2 / 2 of features h less their mean m: the nearer the mean m_c the larger.
bool FeatureProbe::solve_means(const std::vector<double>& mean, int64_t first_row) {
  bool sound = true;
  std::vector<double> apart(width_);
  for (int64_t c = 0; c < classes(); ++c) {
    const double size = shared_.size(c);
    if (size == 0.0) {
      start_[first_row + c] = kNever;
      continue;
    }
    double square = 0.0;
    for (int64_t k = 0; k < width_; ++k) {
      apart[k] = sums_[k * classes() + c] / size - mean[k];
      square += apart[k] * apart[k];
    }
    sound = set_row(first_row + c, apart.data(), 1, -square / 2.0, mean) && sound;
  }
  return sound;
}

bool FeatureProbe::solve_ridge(const std::vector<double>& mean) {
  const double count = static_cast<double>(shared_.samples().fit_count());
  double trace = 0.0;
  for (int64_t i = 0; i < width_; ++i) {
    for (int64_t j = i; j < width_; ++j) moments_[i * width_ + j] -= count * mean[i] * mean[j];
    trace += moments_[i * width_ + i];
    for (int64_t c = 0; c < classes(); ++c) sums_[i * classes() + c] -= mean[i] * shared_.size(c);
  }
  const double penalty = shared_.ridge() * trace / static_cast<double>(width_);
  for (int64_t i = 0; i < width_; ++i) moments_[i * width_ + i] += largest_ == 0.0F ? 1.0 : penalty;
  bool sound = solve_positive(moments_.data(), sums_.data(), width_, classes());
  for (int64_t c = 0; c < classes(); ++c)
    sound = set_row(c, sums_.data() + c, classes(), shared_.size(c) / count, mean) && sound;
  return sound;
}

// The row start + w.(h - pivot - mean) in terms of h. False where it is not to be trusted.
bool FeatureProbe::set_row(int64_t row, const double* weights, int64_t stride, double start,
                           const std::vector<double>& mean) {
  bool sound = true;
  for (int64_t k = 0; k < width_; ++k) {
    const double weight = weights[k * stride];
    sound = sound && std::fabs(weight) <= kLargestWeight;  // false for NaN
    weights_[row * width_ + k] = static_cast<float>(weight);
    start -= weight * (static_cast<double>(pivot_[k]) + mean[k]);
  }
  start_[row] = static_cast<float>(start);
  return sound;
}

void FeatureProbe::judge(int64_t tile, int64_t count, const float* features, ProbeScratch& scratch,
                         int64_t* recalled, int64_t* nearest) {
  if (!within_) return;
  PanelSource source{};
  source.weight = weights_.data();
  source.factor = 1.0F;
  scratch.panels.pack(source, rows());
  const auto add = [&](uint64_t hits, const TileSamples& samples, int64_t* counts) {
    for (int64_t g = 0; g < samples.groups; ++g) counts[g] += __builtin_popcountll(hits & samples.planes[g]);
  };
  for (int64_t t = 0; t < count; ++t) {
    const float* values = features + t * width_ * kTile;
    const TileSamples samples = shared_.samples().tile(tile + t);
    within_ =
        kernels_.center({values, nullptr, nullptr, width_, shared_.samples().valid(tile + t), kLargest}).within;
    if (!within_) return;
    Product product{};
    product.tile = values;
    product.bias = start_.data();
    product.out = floats(scratch.scores);
    scratch.panels.multiply(product, rows());
    const float* scores = product.out;
    if (ridge_) add(kernels_.recall(scores, classes(), samples.labels), samples, recalled);
    if (ridge_) scores += classes() * kTile;
    if (means_) add(kernels_.recall(scores, classes(), samples.labels), samples, nearest);
  }
}

void FeatureProbe::finish(int64_t* recalled, int64_t* nearest) const {
  for (int64_t g = 0; g < shared_.samples().groups(); ++g) {
    if (ridge_ && !(within_ && ridge_solved_)) recalled[g] = shared_.judged(g);
    if (means_ && !(within_ && means_solved_)) nearest[g] = shared_.judged(g);
  }
}

}  // namespace rledit::cpu
