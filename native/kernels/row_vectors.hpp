// A row a vector at a time, and at its end the few columns that are left: the same instructions in every lane, so that
// a column's result does not depend on where in a vector it lies.
#pragma once

#include "bfloat16.hpp"
#include "simd.hpp"

namespace layertap::LAYERTAP_ISA {

// All lanes, or the first `count` of them.
struct Whole {};
struct Some {
  std::int64_t count;
};

inline Floats load(const float* p, Whole) { return load(p); }
inline Floats load(const float* p, Some some) { return load(p, some.count); }
inline void store(float* p, Floats x, Whole) { store(p, x); }
inline void store(float* p, Floats x, Some some) { store(p, x, some.count); }

// Zero in lanes that are not there.
inline Floats only(Floats x, Whole) { return x; }
#if defined(__AVX512F__)
inline Floats only(Floats x, Some some) { return {_mm512_maskz_mov_ps(first(some.count), x.v)}; }
#else
inline Floats only(Floats x, Some some) { return {_mm256_and_ps(x.v, _mm256_castsi256_ps(first(some.count)))}; }
#endif

// body(column, lanes) for the vectors of columns [begin, columns).
template <class Body>
inline void each_vector(std::int64_t begin, std::int64_t columns, Body body) {
  std::int64_t c = begin;
  for (; c + width <= columns; c += width) body(c, Whole{});
  if (c < columns) body(c, Some{columns - c});
}

// Where the last vector of `columns` ends.
inline std::int64_t whole_vectors(std::int64_t columns) { return (columns + width - 1) / width * width; }

template <class T>
inline void fill(T* row, std::int64_t begin, std::int64_t end, T value) {
  for (std::int64_t c = begin; c < end; ++c) row[c] = value;
}

}  // namespace layertap::LAYERTAP_ISA
