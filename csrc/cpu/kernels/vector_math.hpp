// Vectors of floats and the elementwise functions, in GCC/Clang vector extensions. Included by kernels.cpp
// alone, once per instruction set, hence the unnamed namespace inside the instruction set's own.
#pragma once

#include <cstdint>
#include <cstring>

#ifdef __SSE2__
#include <immintrin.h>
#endif

namespace rledit::cpu::RLEDIT_ISA {
namespace {

constexpr int kLanes = RLEDIT_LANES;
typedef float vfloat __attribute__((vector_size(4 * RLEDIT_LANES)));
typedef int32_t vint __attribute__((vector_size(4 * RLEDIT_LANES)));

inline vfloat load(const float* from) {
  vfloat value;
  std::memcpy(&value, from, sizeof(value));  // the compiler makes it one unaligned load
  return value;
}
inline vint load(const int32_t* from) {
  vint value;
  std::memcpy(&value, from, sizeof(value));
  return value;
}
inline void store(float* to, vfloat value) { std::memcpy(to, &value, sizeof(value)); }
inline void store(int32_t* to, vint value) { std::memcpy(to, &value, sizeof(value)); }
// Minus zero, because the compiler may drop that and not "plus zero", which would turn -0 into 0.
inline vfloat broadcast(float value) { return value - vfloat{}; }
inline vfloat select(vint mask, vfloat yes, vfloat no) { return mask ? yes : no; }
inline vint select(vint mask, vint yes, vint no) { return mask ? yes : no; }

// One bit for each lane of a comparison's result, lane 0 lowest.
inline uint32_t sample_bits(vint mask) {
#if defined(__AVX512DQ__) && RLEDIT_LANES == 16
  return _mm512_movepi32_mask((__m512i)mask);
#elif defined(__AVX__) && RLEDIT_LANES == 8
  return static_cast<uint32_t>(_mm256_movemask_ps((__m256)mask));
#elif defined(__SSE2__) && RLEDIT_LANES == 4
  return static_cast<uint32_t>(_mm_movemask_ps((__m128)mask));
#else
  uint32_t bits = 0;
  for (int lane = 0; lane < kLanes; ++lane) bits |= static_cast<uint32_t>(mask[lane] & 1) << lane;
  return bits;
#endif
}

// max(x, 0) that keeps NaN, as torch's does: a network that has blown up must not look healthy.
inline vfloat relu(vfloat x) { return select(x <= 0.0F, broadcast(0.0F), x); }

// Round to nearest even. Infinities stay and NaNs stay NaN (the carry could make a zero of them).
inline vfloat rounded_bf16(vfloat x) {
  typedef uint32_t vuint __attribute__((vector_size(4 * RLEDIT_LANES)));
  vuint bits = (vuint)x;
  bits += 0x7fffU + ((bits >> 16) & 1U);
  return select(x != x, x, (vfloat)(bits & 0xffff0000U));
}

// exp by range reduction to [-ln2/2, ln2/2] and the degree-5 polynomial of Cephes' expf (S. Moshier);
// relative error below 2e-7. Infinity above 88.4, exp(-87.3) below -87.3; keeps NaN.
inline vfloat exponential(vfloat x) {
  const vint not_a_number = x != x;
  vfloat y = select(x > 88.7F, broadcast(88.7F), x);
  y = select(y > -87.3F, y, broadcast(-87.3F));
  const vfloat magic = broadcast(12582912.0F);  // 1.5 * 2^23: adding it rounds to an integer
  const vfloat n = (y * 1.44269504088896341F + magic) - magic;
  const vfloat r = (y - n * 0.693359375F) + n * 2.12194440e-4F;
  vfloat p = broadcast(1.9875691500e-4F);
  p = p * r + 1.3981999507e-3F;
  p = p * r + 8.3334519073e-3F;
  p = p * r + 4.1665795894e-2F;
  p = p * r + 1.6666665459e-1F;
  p = p * r + 5.0000001201e-1F;
  p = p * r * r + r + 1.0F;
  const vfloat power = (vfloat)((__builtin_convertvector(n, vint) + 127) << 23);
  return select(not_a_number, x, p * power);
}

// log for x >= 1 (sums of exponentials), Cephes' logf.
inline vfloat logarithm(vfloat x) {
  vint bits = (vint)x;
  vint exponent = (bits >> 23) - 126;
  vfloat m = (vfloat)((bits & 0x007fffff) | 0x3f000000);  // [0.5, 1)
  const vint small = m < 0.707106781186547524F;
  exponent += small;  // -1 where small
  m = select(small, m + m, m) - 1.0F;
  const vfloat e = __builtin_convertvector(exponent, vfloat);
  const vfloat z = m * m;
  vfloat p = broadcast(7.0376836292e-2F);
  p = p * m - 1.1514610310e-1F;
  p = p * m + 1.1676998740e-1F;
  p = p * m - 1.2420140846e-1F;
  p = p * m + 1.4249322787e-1F;
  p = p * m - 1.6668057665e-1F;
  p = p * m + 2.0000714765e-1F;
  p = p * m - 2.4999993993e-1F;
  p = p * m + 3.3333331174e-1F;
  p = p * m * z + e * -2.12194440e-4F - 0.5F * z;
  return m + p + e * 0.693359375F;
}

// Cephes' tanhf: a polynomial near zero, where 1 - 2/(e^2x + 1) would cancel.
inline vfloat hyperbolic_tangent(vfloat x) {
  const vfloat z = x * x;
  vfloat p = broadcast(-5.70498872745e-3F);
  p = p * z + 2.06390887954e-2F;
  p = p * z - 5.37397155531e-2F;
  p = p * z + 1.33314422036e-1F;
  p = p * z - 3.33332819422e-1F;
  const vfloat near = p * z * x + x;
  const vfloat far = 1.0F - 2.0F / (exponential(x + x) + 1.0F);
  return select(z < 0.390625F, near, far);
}

// x * Phi(x) with erf by Abramowitz & Stegun 7.1.26, absolute error of erf below 2e-7.
inline vfloat gelu(vfloat x) {
  const vfloat a = select(x < 0.0F, -x, x) * 0.70710678118654752F;
  const vfloat t = 1.0F / (1.0F + 0.3275911F * a);
  vfloat p = broadcast(1.061405429F);
  p = p * t - 1.453152027F;
  p = p * t + 1.421413741F;
  p = p * t - 0.284496736F;
  p = p * t + 0.254829592F;
  const vfloat tail = p * t * exponential(-a * a);  // erfc(|x| / sqrt 2)
  return 0.5F * x * select(x < 0.0F, tail, 2.0F - tail);
}

inline vfloat gelu_tanh(vfloat x) {
  return 0.5F * x * (1.0F + hyperbolic_tangent(0.79788456080286536F * (x + 0.044715F * x * x * x)));
}

inline vfloat activated(vfloat x, Nonlinearity nonlinearity) {
  switch (nonlinearity) {
    case Nonlinearity::identity: return x;
    case Nonlinearity::relu: return relu(x);
    case Nonlinearity::gelu: return gelu(x);
    case Nonlinearity::gelu_tanh: return gelu_tanh(x);
    case Nonlinearity::tanh: return hyperbolic_tangent(x);
    case Nonlinearity::silu: return x / (1.0F + exponential(-x));
  }
  return x;
}

}  // namespace
}  // namespace rledit::cpu::RLEDIT_ISA
