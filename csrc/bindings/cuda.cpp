// rledit._cuda: the ops on tensors of a GPU, given as DLPack capsules, in a stream of the caller's. Shapes,
// types and devices are checked; values are not, because that would mean to wait for the GPU.
#include <pybind11/stl.h>

#include <limits>
#include <optional>

#include "arguments.hpp"
#include "dlpack.hpp"
#include "ops.hpp"

using namespace rledit::bindings;
using namespace py::literals;

namespace {

#ifdef RLEDIT_CUDA_ON_HOST
constexpr int32_t kDevice = 1;  // the CPU: a build for tests, see tests/cuda_shim
constexpr bool kOnHost = true;
#else
constexpr int32_t kDevice = 2;  // DLPack's number for CUDA
constexpr bool kOnHost = false;
#endif

using Capsules = std::vector<std::optional<py::capsule>>;

void check(cudaError_t error) {
  if (error != cudaSuccess) throw std::runtime_error(std::string("CUDA: ") + cudaGetErrorString(error));
}

int as_int(const std::string& name, int64_t size) {
  if (size < 0 || size > std::numeric_limits<int>::max())
    throw py::value_error(name + ": expected a size below 2^31, got " + std::to_string(size));
  return static_cast<int>(size);
}

template <class T>
T* optional_elements(const std::string& name, const std::optional<py::capsule>& capsule,
                     std::vector<int64_t> shape) {
  return capsule ? elements<T>(name, *capsule, kDevice, shape) : nullptr;
}

void check_groups(int64_t groups) {
  if (groups < 0 || groups > rledit::kMaxGroups)
    throw py::value_error("groups: expected 0..64, got " + std::to_string(groups));
}

rledit::cuda::DeviceTail tail_of(const py::capsule& activations, const std::vector<py::capsule>& weights,
                                 const Capsules& biases, const std::vector<std::string>& nonlinearities,
                                 const py::capsule& labels, const py::capsule& members, int64_t groups,
                                 const Capsules& lefts, const Capsules& rights, int64_t candidates,
                                 rledit::EditRule rule, const std::string& precision) {
  const size_t layers = weights.size();
  if (layers < 1 || layers > rledit::cuda::kMostLayers)
    throw py::value_error("weights: expected 1 to 16 layers, got " + std::to_string(layers));
  if (biases.size() != layers || nonlinearities.size() != layers || lefts.size() != layers ||
      rights.size() != layers)
    throw py::value_error("biases, nonlinearities, lefts, rights: expected one entry per layer");
  check_groups(groups);
  rledit::cuda::DeviceTail tail{};
  std::vector<int64_t> shape{-1, -1};
  tail.activations = elements<float>("activations", activations, kDevice, shape);
  tail.samples = shape[0];
  int64_t inputs = shape[1];
  if (inputs < 1) throw py::value_error("activations: expected at least one input");
  tail.candidates = as_int("candidates", candidates);
  tail.groups = static_cast<int>(groups);
  tail.rule = rule;
  tail.precision = precision_of(precision);
  tail.layers = static_cast<int>(layers);
  for (size_t l = 0; l < layers; ++l) {
    const std::string at = "[" + std::to_string(l) + "]";
    rledit::cuda::DeviceLayer& layer = tail.layer[l];
    const bool own = tensor_of("weights" + at, weights[l]).dimensions == 3;
    std::vector<int64_t> weight =
        own ? std::vector<int64_t>{candidates, -1, inputs} : std::vector<int64_t>{-1, inputs};
    layer.weight = elements<float>("weights" + at, weights[l], kDevice, weight);
    const int64_t outputs = weight[own ? 1 : 0];
    if (outputs < 1) throw py::value_error("weights" + at + ": expected at least one output");
    layer.weight_stride = own ? outputs * inputs : 0;
    layer.bias = optional_elements<float>("biases" + at, biases[l], {outputs});
    layer.inputs = as_int("weights" + at, inputs);
    layer.outputs = as_int("weights" + at, outputs);
    layer.nonlinearity = nonlinearity_of(nonlinearities[l]);
    if (lefts[l].has_value() != rights[l].has_value())
      throw py::value_error("lefts" + at + ", rights" + at + ": expected both factors or none");
    if (lefts[l]) {
      std::vector<int64_t> left{candidates, outputs, -1};
      layer.left = elements<float>("lefts" + at, *lefts[l], kDevice, left);
      layer.right = optional_elements<float>("rights" + at, rights[l], {candidates, left[2], inputs});
      layer.rank = as_int("lefts" + at, left[2]);
      as_int("lefts" + at, outputs * left[2]);
    }
    inputs = outputs;
  }
  std::vector<int64_t> count{tail.samples};
  tail.labels = elements<int64_t>("labels", labels, kDevice, count);
  tail.members = reinterpret_cast<const uint64_t*>(elements<int64_t>("members", members, kDevice, count));
  return tail;
}

rledit::cuda::DeviceTally tally_of(int64_t n, int64_t g, int64_t c, const std::optional<py::capsule>& correct,
                                   const std::optional<py::capsule>& predicted,
                                   const std::optional<py::capsule>& confusion,
                                   const std::optional<py::capsule>& histogram,
                                   const std::optional<py::capsule>& loss, int64_t bins, float margin_limit) {
  rledit::cuda::DeviceTally tally{};
  auto counts = [](int64_t* at) { return reinterpret_cast<unsigned long long*>(at); };
  tally.correct = counts(optional_elements<int64_t>("correct", correct, {n, g}));
  tally.predicted = counts(optional_elements<int64_t>("predicted", predicted, {n, g, c}));
  tally.confusion = counts(optional_elements<int64_t>("confusion", confusion, {n, g, c, c}));
  tally.loss = optional_elements<double>("loss", loss, {n, g});
  if (histogram) {
    if (c != 2) throw py::value_error("histogram: expected 2 classes, got " + std::to_string(c));
    if (bins < 1 || bins > 1 << 24 || !(margin_limit > 0.0F) ||
        margin_limit > std::numeric_limits<float>::max())
      throw py::value_error("bins, margin_limit: expected positive numbers");
    tally.histogram = counts(optional_elements<int64_t>("histogram", histogram, {n, g, 2, bins}));
  }
  tally.bins = static_cast<int>(bins);
  tally.margin_limit = margin_limit;
  return tally;
}

cudaStream_t stream_of(uintptr_t stream) { return reinterpret_cast<cudaStream_t>(stream); }

int64_t scratch_floats(int64_t samples, int64_t candidates, const std::vector<int64_t>& outputs) {
  if (outputs.empty() || outputs.size() > rledit::cuda::kMostLayers)
    throw py::value_error("outputs: expected 1 to 16 layers, got " + std::to_string(outputs.size()));
  rledit::cuda::DeviceTail tail{};
  tail.samples = samples;
  tail.candidates = candidates;
  tail.layers = static_cast<int>(outputs.size());
  for (size_t l = 0; l < outputs.size(); ++l) tail.layer[l].outputs = as_int("outputs", outputs[l]);
  return rledit::cuda::scratch_floats(tail);
}

void score_tail(const py::capsule& activations, const std::vector<py::capsule>& weights, const Capsules& biases,
                const std::vector<std::string>& nonlinearities, const py::capsule& labels,
                const py::capsule& members, int64_t groups, const Capsules& lefts, const Capsules& rights,
                int64_t candidates, const std::string& world, float scale, const std::string& precision,
                const std::optional<py::capsule>& correct, const std::optional<py::capsule>& predicted,
                const std::optional<py::capsule>& confusion, const std::optional<py::capsule>& histogram,
                const std::optional<py::capsule>& loss, int64_t bins, float margin_limit,
                const py::capsule& scratch, uintptr_t stream) {
  rledit::cuda::DeviceTail tail = tail_of(activations, weights, biases, nonlinearities, labels, members, groups,
                                          lefts, rights, candidates, rule_of(world, scale), precision);
  const rledit::cuda::DeviceTally tally =
      tally_of(candidates, groups, tail.layer[tail.layers - 1].outputs, correct, predicted, confusion,
               histogram, loss, bins, margin_limit);
  std::vector<int64_t> size{-1};
  tail.scratch = elements<float>("scratch", scratch, kDevice, size);
  if (const int64_t least = rledit::cuda::scratch_floats(tail); size[0] < least)
    throw py::value_error("scratch: expected at least " + std::to_string(least) + " floats, got " +
                          std::to_string(size[0]));
  check(rledit::cuda::score_tail(tail, tally, stream_of(stream)));
}

void tally_logits(const py::capsule& logits, const py::capsule& labels, const py::capsule& members,
                  int64_t groups, const std::optional<py::capsule>& correct,
                  const std::optional<py::capsule>& predicted, const std::optional<py::capsule>& confusion,
                  const std::optional<py::capsule>& histogram, const std::optional<py::capsule>& loss,
                  int64_t bins, float margin_limit, uintptr_t stream) {
  std::vector<int64_t> shape{-1, -1, -1};
  const float* values = elements<float>("logits", logits, kDevice, shape);
  check_groups(groups);
  const int classes = as_int("logits", shape[2]);
  if (classes < 1) throw py::value_error("logits: expected at least one class");
  std::vector<int64_t> count{shape[1]};
  const int64_t* known = elements<int64_t>("labels", labels, kDevice, count);
  const int64_t* bits = elements<int64_t>("members", members, kDevice, count);
  const rledit::cuda::DeviceTally tally =
      tally_of(shape[0], groups, classes, correct, predicted, confusion, histogram, loss, bins, margin_limit);
  check(rledit::cuda::tally_logits(values, known, reinterpret_cast<const uint64_t*>(bits), shape[0], shape[1],
                                   classes, static_cast<int>(groups), tally, stream_of(stream)));
}

void apply_lowrank(const py::capsule& weight, const py::capsule& left, const py::capsule& right,
                   const std::string& world, float scale, uintptr_t stream) {
  std::vector<int64_t> shape{-1, -1, -1};
  float* values = elements<float>("weight", weight, kDevice, shape);
  std::vector<int64_t> left_shape{shape[0], shape[1], -1};
  const float* left_values = elements<float>("left", left, kDevice, left_shape);
  std::vector<int64_t> right_shape{shape[0], left_shape[2], shape[2]};
  const float* right_values = elements<float>("right", right, kDevice, right_shape);
  as_int("left", shape[1] * left_shape[2]);
  check(rledit::cuda::apply_lowrank(values, left_values, right_values, shape[0], as_int("weight", shape[1]),
                                    as_int("weight", shape[2]), as_int("left", left_shape[2]),
                                    rule_of(world, scale), stream_of(stream)));
}

}  // namespace

PYBIND11_MODULE(_cuda, module) {
  module.doc() = "The ops of rledit on tensors of a GPU; rledit.ops holds the definitions.";
  module.attr("on_host") = kOnHost;
  module.def("scratch_floats", &scratch_floats, "samples"_a, "candidates"_a, "outputs"_a,
             "What score_tail needs of scratch, for layers of so many outputs.");
  module.def("score_tail", &score_tail, "activations"_a, "weights"_a, "biases"_a, "nonlinearities"_a,
             "labels"_a, "members"_a, "groups"_a, "lefts"_a, "rights"_a, "candidates"_a, "world"_a, "scale"_a,
             "precision"_a, "correct"_a, "predicted"_a, "confusion"_a, "histogram"_a, "loss"_a, "bins"_a,
             "margin_limit"_a, "scratch"_a, "stream"_a);
  module.def("tally_logits", &tally_logits, "logits"_a, "labels"_a, "members"_a, "groups"_a, "correct"_a,
             "predicted"_a, "confusion"_a, "histogram"_a, "loss"_a, "bins"_a, "margin_limit"_a, "stream"_a);
  module.def("apply_lowrank_", &apply_lowrank, "weight"_a, "left"_a, "right"_a, "world"_a, "scale"_a,
             "stream"_a);
}
