// What fresh classifiers still know from a candidate's features: sums over the samples in `fit`, what is solved
// from them, and how many of the others it gets right. rledit/ops/tally_features.py has the formulas.
#pragma once

#include <memory>
#include <vector>

#include "counting.hpp"
#include "panels.hpp"

namespace rledit::cpu {

// What all candidates share. Throws std::invalid_argument where nobody fits.
class ProbeSamples {
 public:
  ProbeSamples(const PackedSamples& samples, int64_t classes, double ridge);

  const PackedSamples& samples() const { return samples_; }
  int64_t classes() const { return static_cast<int64_t>(sizes_.size()); }
  double ridge() const { return ridge_; }
  double size(int64_t label) const { return sizes_[label]; }  // how many samples of it fit
  const LabelRun* runs(int64_t tile) const { return runs_.data() + starts_[tile]; }
  int64_t run_count(int64_t tile) const { return starts_[tile + 1] - starts_[tile]; }
  int64_t judged(int64_t group) const { return judged_[group]; }  // how many samples

 private:
  const PackedSamples& samples_;
  double ridge_;
  std::vector<double> sizes_;
  std::vector<LabelRun> runs_;
  std::vector<int64_t> starts_;  // [fit tiles + 1]
  std::vector<int64_t> judged_;
};

// Memory of a thread.
struct ProbeScratch {
  ProbeScratch(const Kernels& kernels, const ProbeSamples& shared, int64_t width, int64_t tiles);

  Buffer centered;  // [tiles][width + kMomentsPadding][kTile]
  Buffer scores;    // [2 * classes][kTile]
  Panels panels;    // of all scores
};

// Of one candidate. First learn() all tiles that fit, in their order, then solve(), then judge() the others,
// then finish(). Features are [tiles][width][kTile].
class FeatureProbe {
 public:
  // Which of the two are wanted.
  FeatureProbe(const Kernels& kernels, const ProbeSamples& shared, int64_t width, bool ridge, bool means);

  static int64_t bytes(const ProbeSamples& shared, int64_t width);  // of one

  void learn(int64_t tile, int64_t count, const float* features, ProbeScratch& scratch);
  void solve();
  // recalled, nearest: [groups], or nullptr where not wanted.
  void judge(int64_t tile, int64_t count, const float* features, ProbeScratch& scratch, int64_t* recalled,
             int64_t* nearest);
  // Where the candidate cannot be judged, all of the judged samples count.
  void finish(int64_t* recalled, int64_t* nearest) const;

 private:
  int64_t classes() const { return shared_.classes(); }
  int64_t rows() const { return (ridge_ ? classes() : 0) + (means_ ? classes() : 0); }
  bool solve_ridge(const std::vector<double>& mean);
  bool solve_means(const std::vector<double>& mean, int64_t first_row);
  bool set_row(int64_t row, const double* weights, int64_t stride, double start,
               const std::vector<double>& mean);

  const Kernels& kernels_;
  const ProbeSamples& shared_;
  int64_t width_;
  bool ridge_;
  bool means_;
  bool within_ = true;  // whether all features are
  bool ridge_solved_ = true;
  bool means_solved_ = true;
  float largest_ = 0.0F;         // difference from the pivot
  std::vector<float> pivot_;     // [width], the features of the first sample
  std::vector<double> moments_;  // [width, width], of features less the pivot
  std::vector<double> sums_;     // [width, classes]
  std::vector<float> weights_;   // [rows, width]
  std::vector<float> start_;     // [rows]
};

}  // namespace rledit::cpu
