// From Python's lists, one entry per layer, to the views of a tail and of its candidates.
#pragma once

#include "arguments.hpp"

namespace rledit::bindings {

using PerLayer = std::vector<std::optional<Floats>>;

inline void expect_layers(const std::string& name, size_t got, size_t layers) {
  if (got != layers)
    throw py::value_error(name + ": expected one entry for each of " + std::to_string(layers) +
                          " layers, got " + std::to_string(got));
}

inline Tail tail_of(const Floats& activations, const PerLayer& weights, const PerLayer& biases,
                    const std::vector<std::string>& nonlinearities, const Integers& labels,
                    const Booleans& groups, const std::string& precision) {
  if (weights.empty()) throw py::value_error("weights: expected at least one layer, got none");
  expect_layers("biases", biases.size(), weights.size());
  expect_layers("nonlinearities", nonlinearities.size(), weights.size());
  expect_shape("activations", activations, {-1, -1});
  Tail tail;
  tail.activations = activations.data();
  tail.precision = precision_of(precision);
  int64_t inputs = activations.shape(1);
  for (size_t l = 0; l < weights.size(); ++l) {
    const std::string at = "[" + std::to_string(l) + "]";
    if (!weights[l]) throw py::value_error("weights" + at + ": expected an array, got None");
    const Floats& weight = *weights[l];
    expect_shape("weights" + at, weight, {-1, inputs});
    Layer layer;
    layer.weight = weight.data();
    layer.inputs = inputs;
    layer.outputs = weight.shape(0);
    if (layer.inputs < 1 || layer.outputs < 1)
      throw py::value_error("weights" + at + ": expected no empty side, got " + shape_of(weight));
    if (biases[l]) {
      expect_shape("biases" + at, *biases[l], {layer.outputs});
      layer.bias = biases[l]->data();
    }
    layer.nonlinearity = nonlinearity_of(nonlinearities[l]);
    inputs = layer.outputs;
    tail.layers.push_back(layer);
  }
  tail.samples = samples_of(labels, groups, activations.shape(0));
  return tail;
}

inline Candidates candidates_of(const std::vector<Layer>& layers, const PerLayer& weights,
                                const PerLayer& lefts, const PerLayer& rights, int64_t count, EditRule rule,
                                const std::string& algebra) {
  expect_layers("weights", weights.size(), layers.size());
  expect_layers("lefts", lefts.size(), layers.size());
  expect_layers("rights", rights.size(), layers.size());
  if (count < 1) throw py::value_error("candidates: expected at least 1, got " + std::to_string(count));
  Candidates candidates;
  candidates.count = count;
  candidates.rule = rule;
  candidates.algebra = algebra_of(algebra);
  bool differ = false;  // whether anything tells one candidate from another
  for (size_t l = 0; l < layers.size(); ++l) {
    const std::string at = "[" + std::to_string(l) + "]";
    LayerEdit edit;
    if (weights[l]) {
      expect_shape("weights" + at, *weights[l], {count, layers[l].outputs, layers[l].inputs});
      edit.weight = weights[l]->data();
    }
    if (lefts[l].has_value() != rights[l].has_value())
      throw py::value_error("lefts, rights: layer " + std::to_string(l) + " has only one of its two factors");
    if (lefts[l]) {
      expect_shape("lefts" + at, *lefts[l], {count, layers[l].outputs, -1});
      expect_shape("rights" + at, *rights[l], {count, lefts[l]->shape(2), layers[l].inputs});
      edit.factors = {lefts[l]->data(), rights[l]->data(), lefts[l]->shape(2)};
    }
    differ = differ || weights[l] || lefts[l];
    candidates.edits.push_back(edit);
  }
  if (!differ && count != 1)
    throw py::value_error("candidates: expected 1 without factors and weights of their own, got " +
                          std::to_string(count));
  return candidates;
}

}  // namespace rledit::bindings
