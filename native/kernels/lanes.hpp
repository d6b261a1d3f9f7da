// Multiplies one 32-bit group of a row with the same group of `width` columns and adds to `width` sums, in one instruction.
#pragma once

#include <cstring>

#include "simd.hpp"

namespace layertap::LAYERTAP_ISA {

inline std::int32_t load_group(const char* p) {
  std::int32_t group = 0;
  std::memcpy(&group, p, sizeof group);
  return group;
}

#if defined(__AVX512F__)

struct Float32Lanes {
  static constexpr Format format = Format::float32;
  using Factor = __m512;
  using Sum = __m512;
  static Sum zero() { return _mm512_setzero_ps(); }
  static Factor every(const char* group) { return _mm512_castsi512_ps(_mm512_set1_epi32(load_group(group))); }
  static Factor columns(const std::int32_t* words) { return _mm512_loadu_ps(words); }
  static Sum dot(Sum sum, Factor a, Factor b) { return _mm512_fmadd_ps(a, b, sum); }
  static Sum add(Sum x, Sum y) { return _mm512_add_ps(x, y); }
  static Sum load_sum(const std::int32_t* p) { return _mm512_loadu_ps(p); }
  static void store_sum(std::int32_t* p, Sum sum) { _mm512_storeu_ps(p, sum); }
};

#else

struct Float32Lanes {
  static constexpr Format format = Format::float32;
  using Factor = __m256;
  using Sum = __m256;
  static Sum zero() { return _mm256_setzero_ps(); }
  static Factor every(const char* group) { return _mm256_castsi256_ps(_mm256_set1_epi32(load_group(group))); }
  static Factor columns(const std::int32_t* words) { return _mm256_castsi256_ps(load_words(words)); }
  static Sum dot(Sum sum, Factor a, Factor b) { return _mm256_fmadd_ps(a, b, sum); }
  static Sum add(Sum x, Sum y) { return _mm256_add_ps(x, y); }
  static Sum load_sum(const std::int32_t* p) { return _mm256_castsi256_ps(load_words(p)); }
  static void store_sum(std::int32_t* p, Sum sum) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), _mm256_castps_si256(sum));
  }

 private:
  static __m256i load_words(const std::int32_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }
};

#endif

#if defined(__AVX512BF16__)

struct Bfloat16Lanes {
  static constexpr Format format = Format::bfloat16;
  using Factor = __m512bh;
  using Sum = __m512;
  static Sum zero() { return _mm512_setzero_ps(); }
  static Factor every(const char* group) { return pairs(_mm512_set1_epi32(load_group(group))); }
  static Factor columns(const std::int32_t* words) { return pairs(_mm512_loadu_si512(words)); }
  static Sum dot(Sum sum, Factor a, Factor b) { return _mm512_dpbf16_ps(sum, a, b); }
  static Sum add(Sum x, Sum y) { return _mm512_add_ps(x, y); }
  static Sum load_sum(const std::int32_t* p) { return _mm512_loadu_ps(p); }
  static void store_sum(std::int32_t* p, Sum sum) { _mm512_storeu_ps(p, sum); }

 private:
  static Factor pairs(__m512i words) { return __builtin_bit_cast(Factor, words); }
};

#endif

#if defined(__AVX512VNNI__)

struct Int8Lanes {
  static constexpr Format format = Format::int8;
  using Factor = __m512i;
  using Sum = __m512i;
  static Sum zero() { return _mm512_setzero_si512(); }
  static Factor every(const char* group) { return _mm512_set1_epi32(load_group(group)); }
  static Factor columns(const std::int32_t* words) { return _mm512_loadu_si512(words); }
  // Assembly, since with the intrinsic g++ 12 copies every sum in every step, which halves the speed.
  static Sum dot(Sum sum, Factor a, Factor b) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
    return sum;
  }
  static Sum add(Sum x, Sum y) { return _mm512_add_epi32(x, y); }
  static Sum load_sum(const std::int32_t* p) { return _mm512_loadu_si512(p); }
  static void store_sum(std::int32_t* p, Sum sum) { _mm512_storeu_si512(p, sum); }
};

#endif

}  // namespace layertap::LAYERTAP_ISA
