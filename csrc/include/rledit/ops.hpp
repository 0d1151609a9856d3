// The ops. rledit/ops/*.py holds the definition of each in plain PyTorch; these must agree with it.
#pragma once

#include <memory>

#include "rledit/views.hpp"

namespace rledit {

// weight[n] becomes its edit by candidate n's factors, in place, without the product left@right
// ever being stored. weight: [N, outputs, inputs].
void apply_lowrank(float* weight, int64_t candidates, int64_t outputs, int64_t inputs, const Factors& factors,
                   EditRule rule);

// A tail made ready for many calls: activations, weights, labels and groups are checked, packed for this
// CPU and owned, so the arrays that it was made of may go; weights that stay are read where they lie. Several
// threads may score at once.
class PreparedTail {
 public:
  // Throws std::invalid_argument for a label outside 0..classes-1, or a probe with nobody to learn from.
  explicit PreparedTail(const Tail& tail);
  ~PreparedTail();
  PreparedTail(PreparedTail&&) noexcept;
  PreparedTail& operator=(PreparedTail&&) noexcept;

  // Edits, runs and counts every candidate on every sample, tile by tile: neither edited weights of more
  // than a few rows nor logits of more than a chunk of samples exist at a time.
  void score(const Candidates& candidates, const Tally& tally) const;

  const std::vector<Layer>& layers() const;
  int64_t sample_count() const;
  int64_t group_count() const;
  bool has_probe() const;
  int64_t classes() const { return layers().back().outputs; }
  int64_t bytes() const;  // of all that it owns

  struct State;  // see cpu/prepared_tail.hpp

 private:
  std::unique_ptr<const State> state_;
};

// Counts finished logits [N, samples.count, classes]. Throws as PreparedTail does.
void tally_logits(const float* logits, int64_t candidates, int64_t classes, const Samples& samples,
                  const Tally& tally);

// Teaches probes on features [N, samples.count, width] and counts, as recalled and nearest, which of the other
// samples they know. Throws std::invalid_argument for a label outside 0..classes-1, or nobody to learn from.
void tally_features(const float* features, int64_t candidates, int64_t width, int64_t classes,
                    const Samples& samples, const Probe& probe, const Tally& tally);

// One term of an objective: weight * counts[n][group] / total.
struct Share {
  int64_t group;
  double weight;
  double total;
};

// values[n] = the sum of the terms, in their order; counts: [candidates, groups].
void weigh_shares(const int64_t* counts, int64_t candidates, int64_t groups, const std::vector<Share>& shares,
                  double* values);

// The instruction sets this machine can run, best first; and the one in use.
std::vector<const char*> available_isas();
const char* active_isa();
// Forces a path by name; returns false (and changes nothing) where the machine lacks it. RLEDIT_AMX_FLOAT32 is
// read now, and with the first call if no path is forced before; throws std::invalid_argument if it is neither
// 0 nor 1.
bool select_isa(const char* name);

// Threads of the persistent pool. Results do not depend on the number. Without set_num_threads it comes from
// the environment, see cpu/cpus.hpp; throws std::invalid_argument as long as RLEDIT_NUM_THREADS is no number.
int num_threads();
void set_num_threads(int threads);

// What the active instruction set reaches on all threads: multiply-adds in registers, in operations per
// second (two for each), and reads of an array of this size, in bytes per second.
double probe_peak(Precision precision, double seconds);
double probe_bandwidth(int64_t bytes, double seconds);

}  // namespace rledit
