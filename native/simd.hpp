// Vectors of floats, 16 wide (AVX-512) or 8 wide (AVX2). Sums across lanes always run over sixteen of them, in one order, so
// that float32 results are the same bits on all instruction sets. Everything here is inline and in the namespace of the
// instruction set that the file is compiled for, so that no two of them collide in the linker. For the same reason kernel
// files use no templates of the standard library.
#pragma once

#include <immintrin.h>

#include <cstdint>

#include "kernels.hpp"

#ifndef LAYERTAP_ISA
#error "compile kernels with -DLAYERTAP_ISA=<name>"
#endif

namespace layertap::LAYERTAP_ISA {

#if defined(__AVX512F__)

constexpr int width = 16;

struct Floats {
  __m512 v;
};

inline Floats zero() { return {_mm512_setzero_ps()}; }
inline Floats all(float x) { return {_mm512_set1_ps(x)}; }
inline Floats load(const float* p) { return {_mm512_loadu_ps(p)}; }
inline void store(float* p, Floats x) { _mm512_storeu_ps(p, x.v); }
// The first `count` (0 to 16); the others are zero.
inline __mmask16 first(std::int64_t count) { return static_cast<__mmask16>((1U << count) - 1U); }
inline Floats load(const float* p, std::int64_t count) { return {_mm512_maskz_loadu_ps(first(count), p)}; }
inline void store(float* p, Floats x, std::int64_t count) { _mm512_mask_storeu_ps(p, first(count), x.v); }
inline Floats operator+(Floats a, Floats b) { return {_mm512_add_ps(a.v, b.v)}; }
inline Floats operator-(Floats a, Floats b) { return {_mm512_sub_ps(a.v, b.v)}; }
inline Floats operator*(Floats a, Floats b) { return {_mm512_mul_ps(a.v, b.v)}; }
inline Floats operator/(Floats a, Floats b) { return {_mm512_div_ps(a.v, b.v)}; }
inline Floats fma(Floats a, Floats b, Floats c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }
// Like the instruction: b where either is NaN.
inline Floats max(Floats a, Floats b) { return {_mm512_max_ps(a.v, b.v)}; }
inline Floats min(Floats a, Floats b) { return {_mm512_min_ps(a.v, b.v)}; }
inline __m256 low_half(Floats x) { return _mm512_castps512_ps256(x.v); }
inline __m256 high_half(Floats x) { return _mm512_extractf32x8_ps(x.v, 1); }

#else

constexpr int width = 8;

struct Floats {
  __m256 v;
};

inline Floats zero() { return {_mm256_setzero_ps()}; }
inline Floats all(float x) { return {_mm256_set1_ps(x)}; }
inline Floats load(const float* p) { return {_mm256_loadu_ps(p)}; }
inline void store(float* p, Floats x) { _mm256_storeu_ps(p, x.v); }
inline __m256i first(std::int64_t count) {
  const __m256i lanes = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(count)), lanes);
}
// The first `count` (0 to 8); the others are zero.
inline Floats load(const float* p, std::int64_t count) { return {_mm256_maskload_ps(p, first(count))}; }
inline void store(float* p, Floats x, std::int64_t count) { _mm256_maskstore_ps(p, first(count), x.v); }
inline Floats operator+(Floats a, Floats b) { return {_mm256_add_ps(a.v, b.v)}; }
inline Floats operator-(Floats a, Floats b) { return {_mm256_sub_ps(a.v, b.v)}; }
inline Floats operator*(Floats a, Floats b) { return {_mm256_mul_ps(a.v, b.v)}; }
inline Floats operator/(Floats a, Floats b) { return {_mm256_div_ps(a.v, b.v)}; }
inline Floats fma(Floats a, Floats b, Floats c) { return {_mm256_fmadd_ps(a.v, b.v, c.v)}; }
// Like the instruction: b where either is NaN.
inline Floats max(Floats a, Floats b) { return {_mm256_max_ps(a.v, b.v)}; }
inline Floats min(Floats a, Floats b) { return {_mm256_min_ps(a.v, b.v)}; }

#endif

// Lanes of a sum, and the vectors that they take.
constexpr int sum_lanes = 16;
constexpr int sum_vectors = sum_lanes / width;

// The vector of a sum to which column `column` of a row, the first one of a vector, is added.
constexpr int sum_vector(std::int64_t column) { return static_cast<int>(column / width % sum_vectors); }

// Adds up sixteen lanes by halves: lanes i and i + 8, then i and i + 4, i and i + 2, and the two that are left.
inline float sum(const Floats (&x)[sum_vectors]) {
#if defined(__AVX512F__)
  const __m256 halves = _mm256_add_ps(low_half(x[0]), high_half(x[0]));
#else
  const __m256 halves = _mm256_add_ps(x[0].v, x[1].v);
#endif
  __m128 s = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1));
  s = _mm_add_ps(s, _mm_movehl_ps(s, s));
  return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

}  // namespace layertap::LAYERTAP_ISA
