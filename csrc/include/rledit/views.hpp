// Plain views of the data that the ops read and write. No view owns memory, and nothing here knows
// Python or torch. All arrays are dense and row-major; shapes stand in brackets.
#pragma once

#include <cstdint>
#include <vector>

namespace rledit {

// How low-rank factors change a weight W: shift W + s*(left@right), mask W * (1 + s*(left@right)).
enum class EditKind { shift, mask };

struct EditRule {
  EditKind kind = EditKind::shift;
  float scale = 1.0F;  // s
};

// The elementwise function after a layer. gelu_tanh is torch's GELU(approximate="tanh").
enum class Nonlinearity { identity, relu, gelu, gelu_tanh, tanh, silu };

// bfloat16 rounds every operand of a product to bfloat16 and accumulates in float32.
enum class Precision { float32, bfloat16 };

// How a candidate's first edited layer is computed. Results agree up to rounding; see cpu/algebra.hpp.
enum class Algebra {
  automatic,       // by the cost model
  shared_product,  // shift alone: X W^T once for all candidates, then s (X right^T) left^T for each
  formed,          // edited weights, a few rows at a time, formed anew for every chunk of samples
  formed_once,     // edited weights, formed whole and kept while a candidate passes over all chunks
};

// Factors of N candidates for one weight matrix [outputs, inputs].
struct Factors {
  const float* left = nullptr;   // [N, outputs, rank]
  const float* right = nullptr;  // [N, rank, inputs]
  int64_t rank = 0;              // 0: the layer is not edited
};

// One linear layer of a tail: y = nonlinearity(x W^T + bias).
struct Layer {
  const float* weight = nullptr;  // [outputs, inputs]
  const float* bias = nullptr;    // [outputs] or nullptr
  int64_t outputs = 0;
  int64_t inputs = 0;
  Nonlinearity nonlinearity = Nonlinearity::identity;
};

// What is known about the samples beside their activations. At most 64 groups.
struct Samples {
  const int64_t* labels = nullptr;  // [count], each in 0..classes-1
  const uint8_t* groups = nullptr;  // [group_count, count], 0 or 1
  int64_t count = 0;
  int64_t group_count = 0;
};

// Which samples fresh classifiers of the features learn from; the others judge them. See tally_features in
// rledit/ops for what they are.
struct Probe {
  const uint8_t* fit = nullptr;  // [samples], 0 or 1; nullptr: no probe
  double ridge = 0.0;            // in mean variances of a feature
};

// The end of a network: what stays the same from call to call.
struct Tail {
  const float* activations = nullptr;  // [samples.count, layers[0].inputs]
  std::vector<Layer> layers;
  Samples samples;
  Precision precision = Precision::float32;
  Probe probe;                // of the input of the last layer
  bool weights_stay = false;  // the layers' weights outlive the prepared tail, unchanged: it needs no copy

  int64_t classes() const { return layers.back().outputs; }
};

// What N candidates do to one layer.
struct LayerEdit {
  const float* weight = nullptr;  // [N, outputs, inputs] in place of the layer's own, or nullptr
  Factors factors;                // on top of either

  bool touches() const { return weight != nullptr || factors.rank > 0; }
};

struct Candidates {
  int64_t count = 0;             // N
  std::vector<LayerEdit> edits;  // one per layer
  EditRule rule;
  Algebra algebra = Algebra::automatic;
};

// Where the counts go; a null pointer means that nobody asked. All are zeroed by the caller.
// A sample with a logit that is not finite is never correct and never predicted: it is only missing
// from the counts, and adds kInvalidLoss to the loss.
struct Tally {
  int64_t* correct = nullptr;    // [N, G]
  int64_t* predicted = nullptr;  // [N, G, C]
  int64_t* confusion = nullptr;  // [N, G, C (label), C (prediction)]
  double* loss = nullptr;        // [N, G], sum of cross-entropy, natural logarithm
  int64_t* histogram = nullptr;  // [N, G, 2 (label), bins] of the margin logit[1] - logit[0]; C = 2
  int64_t* concordant =
      nullptr;                  // [N, G, G], of pairs of a positive (label 1) of the first group and a
                                // negative of the second: 2 if its margin is in a higher bin, 1 if in the same
  int64_t* recalled = nullptr;  // [N, G], judged samples that a ridge probe knows
  int64_t* nearest = nullptr;   // [N, G], judged samples nearest to the mean of their class
  int64_t* lower_loss = nullptr;  // [N, G, G], of pairs of a sample of the first group and one of the second: 2
                                  // if its loss is in a lower bin, 1 if in the same
  int64_t bins = 0;
  float margin_limit = 0.0F;  // bins divide [-limit, limit] evenly; the outermost take the rest
};

constexpr double kInvalidLoss = 3.4028234663852886e38;
constexpr int64_t kMaxGroups = 64;

}  // namespace rledit
