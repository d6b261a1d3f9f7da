#include "kernels.hpp"

#include "attention.hpp"
#include "evaluate.hpp"
#include "products.hpp"
#include "rows.hpp"

#define LAYERTAP_TEXT(name) #name
#define LAYERTAP_NAME(name) LAYERTAP_TEXT(name)

namespace layertap::LAYERTAP_ISA {

#if defined(__AVX512BF16__)
constexpr bool has_bfloat16 = true;
#else
constexpr bool has_bfloat16 = false;
#endif
#if defined(__AVX512VNNI__)
constexpr bool has_int8 = true;
#else
constexpr bool has_int8 = false;
#endif
#if defined(LAYERTAP_TILES)
constexpr bool has_split = true;
#else
constexpr bool has_split = false;
#endif

const Kernels& kernels();
const Kernels& kernels() {
  static constexpr Kernels table = {
      LAYERTAP_NAME(LAYERTAP_ISA),
      64,
      has_bfloat16,
      has_int8,
      has_split,
      packed_bytes,
      pack,
      product_scratch,
      product,
      attention_scratch,
      attention,
      embed,
      normalize,
      rotate,
      to_operand,
      widen,
      set_row,
      add_row,
      max_row,
      min_row,
      evaluate,
  };
  return table;
}

}  // namespace layertap::LAYERTAP_ISA
