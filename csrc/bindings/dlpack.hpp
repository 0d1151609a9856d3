// Tensors of other libraries without a copy: the C structures of DLPack (https://dmlc.github.io/dlpack), as far
// as they are read here. A capsule is only borrowed: it stays its owner's.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <string>
#include <vector>

namespace rledit::bindings {

namespace py = pybind11;

struct DLDevice {
  int32_t type;
  int32_t id;
};
struct DLDataType {
  uint8_t code;
  uint8_t bits;
  uint16_t lanes;
};
struct DLTensor {
  void* data;
  DLDevice device;
  int32_t dimensions;
  DLDataType dtype;
  int64_t* shape;
  int64_t* strides;  // in elements; nullptr: dense
  uint64_t byte_offset;
};
struct DLManagedTensor {
  DLTensor tensor;
  void* context;
  void (*deleter)(DLManagedTensor*);
};

constexpr uint8_t kDLInt = 0;
constexpr uint8_t kDLFloat = 2;

template <class T>
constexpr DLDataType kTypeOf{};
template <>
constexpr DLDataType kTypeOf<float>{kDLFloat, 32, 1};
template <>
constexpr DLDataType kTypeOf<double>{kDLFloat, 64, 1};
template <>
constexpr DLDataType kTypeOf<int64_t>{kDLInt, 64, 1};

inline std::string text_of(const DLDataType& type) {
  const char* kind = type.code == kDLFloat ? "float" : type.code == kDLInt ? "int" : "type";
  return kind + std::to_string(type.bits);
}

// The tensor in a capsule. Its name says whether there is one: whoever consumes a capsule renames it and may
// have freed what it points to, and other names stand for other structures. So nothing is read before the name
// is.
inline const DLTensor& tensor_of(const std::string& name, const py::capsule& capsule) {
  const char* kind = capsule.name();
  if (kind != nullptr && std::string(kind) == "dltensor") return capsule.get_pointer<DLManagedTensor>()->tensor;
  throw py::type_error(name + ": expected a DLPack capsule named 'dltensor' that nobody has consumed, got " +
                       (kind != nullptr ? "one named '" + std::string(kind) + "'" : "one without a name"));
}

// The elements of a dense tensor on the expected kind of device, of the expected type and shape; -1 stands for
// any size, and is replaced by what came.
template <class T>
T* elements(const std::string& name, const py::capsule& capsule, int32_t device, std::vector<int64_t>& shape) {
  const DLTensor& tensor = tensor_of(name, capsule);
  const DLDataType& type = tensor.dtype;
  const DLDataType& wanted = kTypeOf<T>;
  if (tensor.device.type != device)
    throw py::type_error(name + ": expected a tensor on device type " + std::to_string(device) + ", got " +
                         std::to_string(tensor.device.type));
  if (type.code != wanted.code || type.bits != wanted.bits || type.lanes != 1)
    throw py::type_error(name + ": expected " + text_of(wanted) + ", got " + text_of(type));
  bool fits = tensor.dimensions == static_cast<int32_t>(shape.size());
  for (size_t i = 0; fits && i < shape.size(); ++i) fits = shape[i] < 0 || shape[i] == tensor.shape[i];
  if (!fits) {
    std::string want, got;
    for (const int64_t size : shape)
      want += (want.empty() ? "" : ", ") + (size < 0 ? "any" : std::to_string(size));
    for (int32_t i = 0; i < tensor.dimensions; ++i)
      got += (i > 0 ? ", " : "") + std::to_string(tensor.shape[i]);
    throw py::value_error(name + ": expected shape [" + want + "], got [" + got + "]");
  }
  int64_t dense = 1;
  for (int32_t i = 0; i < tensor.dimensions; ++i)
    if (tensor.shape[i] == 0) dense = 0;  // of nothing any stride will do
  for (int32_t i = tensor.dimensions; i-- > 0;) {
    if (tensor.strides != nullptr && dense > 0 && tensor.shape[i] > 1 && tensor.strides[i] != dense)
      throw py::value_error(name + ": expected a contiguous tensor");
    dense *= tensor.shape[i];
  }
  shape.assign(tensor.shape, tensor.shape + tensor.dimensions);
  return reinterpret_cast<T*>(static_cast<char*>(tensor.data) + tensor.byte_offset);
}

}  // namespace rledit::bindings
