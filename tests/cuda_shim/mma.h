// nvcuda::wmma: 16 x 16 results, whose elements are spread over the 32 lanes of a warp. All lanes call
// everything.
#pragma once

#include <limits>
#include <stdexcept>
#include <type_traits>

#include "cuda_bf16.h"
#include "cuda_runtime.h"

namespace nvcuda::wmma {

struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
enum layout_t { mem_row_major, mem_col_major };
namespace precision {
struct tf32 {};
}  // namespace precision

namespace shim_detail {
template <class T>
struct Storage {
  using type = T;
};
template <>
struct Storage<precision::tf32> {
  using type = float;
};

// As a tensor core reads an operand: of TF32 the lowest 13 bits are not looked at.
inline float operand(float value, precision::tf32) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  bits &= 0xffffe000U;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}
inline float operand(__nv_bfloat16 value, __nv_bfloat16) { return __bfloat162float(value); }

inline void check_pointer(const void* pointer, int stride, size_t size) {
  if (reinterpret_cast<uintptr_t>(pointer) % 32 != 0 || stride * size % 16 != 0)
    throw std::logic_error("a fragment at an address or with a stride that wmma does not allow");
}
}  // namespace shim_detail

// Rows x Columns of the fragment itself.
template <class Use, int M, int N, int K, class T, class Layout = void>
struct fragment {
  using Element = typename shim_detail::Storage<T>::type;
  static constexpr int rows = std::is_same_v<Use, matrix_b> ? K : M;
  static constexpr int columns = std::is_same_v<Use, matrix_a> ? K : N;
  static constexpr int num_elements = rows * columns / shim::kWarp;
  Element x[num_elements];

  fragment() { std::memset(x, 0xff, sizeof(x)); }

  // Which element of the whole this lane's i-th is.
  static int position(int i) { return static_cast<int>(threadIdx.x % shim::kWarp) + i * shim::kWarp; }
};

template <class Fragment>
void fill_fragment(Fragment& to, float value) {
  for (auto& x : to.x) x = value;
}

template <class Use, int M, int N, int K, class T, class Layout, class From>
void load_matrix_sync(fragment<Use, M, N, K, T, Layout>& to, const From* from, unsigned stride) {
  using Fragment = fragment<Use, M, N, K, T, Layout>;
  shim_detail::check_pointer(from, static_cast<int>(stride), sizeof(From));
  shim::wait_for_warp();
  for (int i = 0; i < Fragment::num_elements; ++i) {
    const int row = Fragment::position(i) / Fragment::columns,
              column = Fragment::position(i) % Fragment::columns;
    to.x[i] = std::is_same_v<Layout, row_major> ? from[row * stride + column] : from[column * stride + row];
  }
}

template <int M, int N, int K>
void store_matrix_sync(float* to, const fragment<accumulator, M, N, K, float>& from, unsigned stride,
                       layout_t layout) {
  using Fragment = fragment<accumulator, M, N, K, float>;
  shim_detail::check_pointer(to, static_cast<int>(stride), sizeof(float));
  for (int i = 0; i < Fragment::num_elements; ++i) {
    const int row = Fragment::position(i) / N, column = Fragment::position(i) % N;
    to[layout == mem_row_major ? row * stride + column : column * stride + row] = from.x[i];
  }
  shim::wait_for_warp();
}

template <int M, int N, int K, class T, class LayoutA, class LayoutB>
void mma_sync(fragment<accumulator, M, N, K, float>& out, const fragment<matrix_a, M, N, K, T, LayoutA>& a,
              const fragment<matrix_b, M, N, K, T, LayoutB>& b,
              const fragment<accumulator, M, N, K, float>& sums) {
  float* const all_a = shim::matrices();
  float* const all_b = all_a + M * K;
  for (int i = 0; i < a.num_elements; ++i) all_a[a.position(i)] = shim_detail::operand(a.x[i], T{});
  for (int i = 0; i < b.num_elements; ++i) all_b[b.position(i)] = shim_detail::operand(b.x[i], T{});
  shim::wait_for_warp();
  for (int i = 0; i < out.num_elements; ++i) {
    const int row = out.position(i) / N, column = out.position(i) % N;
    float sum = sums.x[i];
    for (int k = 0; k < K; ++k) sum += all_a[row * K + k] * all_b[k * N + column];
    out.x[i] = sum;
  }
}

// The nearest TF32, ties away from zero, as cvt.rna does.
inline float __float_to_tf32(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  if ((bits & 0x7f800000U) == 0x7f800000U) return value;
  bits = (bits + 0x1000U) & 0xffffe000U;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

}  // namespace nvcuda::wmma
