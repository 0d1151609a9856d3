// Objectives that are weighted sums of shares of the groups.
#include "rledit/ops.hpp"

namespace rledit {

void weigh_shares(const int64_t* counts, int64_t candidates, int64_t groups, const std::vector<Share>& shares,
                  double* values) {
  for (int64_t n = 0; n < candidates; ++n) {
    double value = 0.0;
    for (const Share& share : shares)
      value += share.weight * (static_cast<double>(counts[n * groups + share.group]) / share.total);
    values[n] = value;
  }
}

}  // namespace rledit
