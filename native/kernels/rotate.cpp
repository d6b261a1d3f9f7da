// Rotary positions (Su et al. 2021, halves of a head against each other as in GPT-NeoX), in float32.
#include <cstring>

#include "row_vectors.hpp"
#include "rows.hpp"

namespace layertap::LAYERTAP_ISA {
namespace {

inline Floats read(const float* p, Whole) { return load(p); }
inline Floats read(const float* p, Some some) { return load(p, some.count); }
inline Floats read(const bfloat16* p, Whole) { return load_bfloat16(p); }
inline Floats read(const bfloat16* p, Some some) {
  bfloat16 few[width] = {};
  std::memcpy(few, p, static_cast<std::size_t>(some.count) * sizeof *p);
  return load_bfloat16(few);
}

// Nothing beyond the last column is written, since the other half of the head follows.
inline void write(float* p, Floats x, Whole) { store(p, x); }
inline void write(float* p, Floats x, Some some) { store(p, x, some.count); }
inline void write(bfloat16* p, Floats x, Whole) { store_bfloat16(p, x); }
inline void write(bfloat16* p, Floats x, Some some) {
  bfloat16 few[width];
  store_bfloat16(few, x);
  std::memcpy(p, few, static_cast<std::size_t>(some.count) * sizeof *p);
}

template <class Element>
void rotate_rows(const Rotation& r) {
  const std::int64_t half = r.head_size / 2;
  for (std::int64_t m = 0; m < r.num_rows; ++m) {
    const std::int64_t place = r.places == nullptr ? r.first_place + m : r.places[m];
    const float* cosines = r.cosines + place * half;
    const float* sines = r.sines + place * half;
    Element* head = static_cast<Element*>(r.rows) + m * r.stride;
    for (std::int64_t i = 0; i < r.num_heads; ++i, head += r.head_size) {
      each_vector(0, half, [&](std::int64_t c, auto lanes) {
        const Floats one = read(head + c, lanes);
        const Floats other = read(head + half + c, lanes);
        const Floats cosine = load(cosines + c, lanes);
        const Floats sine = load(sines + c, lanes);
        write(head + c, one * cosine - other * sine, lanes);
        write(head + half + c, other * cosine + one * sine, lanes);
      });
    }
  }
}

}  // namespace

void rotate(const Rotation& rotation) {
  if (rotation.is_bfloat16)
    rotate_rows<bfloat16>(rotation);
  else
    rotate_rows<float>(rotation);
}

}  // namespace layertap::LAYERTAP_ISA
