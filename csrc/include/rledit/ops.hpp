// The three ops. rledit/ops/*.py holds the definition of each in plain PyTorch; these must agree with it.
#pragma once

#include "rledit/views.hpp"

namespace rledit {

// weight[n] becomes its edit by candidate n's factors, in place, without the product left@right
// ever being stored. weight: [N, outputs, inputs].
void apply_lowrank(float* weight, int64_t candidates, int64_t outputs, int64_t inputs, const Factors& factors,
                   World world, float scale);

// Edits, runs and counts every candidate on every sample, tile by tile: neither edited weights of more
// than a few rows nor logits of more than a chunk of samples exist at a time.
void score_tail(const Tail& tail, const Tally& tally);

// Counts finished logits [N, samples.count, classes].
void tally_logits(const float* logits, int64_t candidates, int64_t classes, const Samples& samples,
                  const Tally& tally);

// The instruction sets this machine can run, best first; and the one in use.
std::vector<const char*> available_isas();
const char* active_isa();
// Forces a path by name; returns false (and changes nothing) where the machine lacks it.
bool select_isa(const char* name);

// Threads of the persistent pool. Results do not depend on the number.
int num_threads();
void set_num_threads(int threads);

}  // namespace rledit
