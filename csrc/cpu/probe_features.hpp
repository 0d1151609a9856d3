// Probes of features that are there already.
#pragma once

#include "feature_probe.hpp"

namespace rledit::cpu {

// features: [candidates, samples, width]. Writes recalled and nearest [candidates, groups], where not null.
void probe_features(const ProbeSamples& shared, const float* features, int64_t candidates, int64_t width,
                    int64_t* recalled, int64_t* nearest);

}  // namespace rledit::cpu
