#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include "names.hpp"
#include "testing.hpp"

namespace nb = nanobind;

namespace layertap {
namespace {

using Matrix = nb::ndarray<nb::ndim<2>, nb::device::cpu>;
using Places = nb::ndarray<const std::int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using FloatVector = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using FloatMatrix = nb::ndarray<float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;

void check(bool holds, const char* why) {
  if (!holds) throw nb::value_error(why);
}

std::int64_t rows_of(const Matrix& matrix) { return static_cast<std::int64_t>(matrix.shape(0)); }

// Elements from one row to the next; the elements of a row must be contiguous.
std::int64_t stride_of(const Matrix& matrix) {
  check(matrix.size() == 0 || matrix.shape(1) == 1 || matrix.stride(1) == 1, "rows need to be contiguous");
  return matrix.stride(0);
}

// Scratch memory of exactly the size that the kernel asks for, misaligned, with a guard behind it.
class Guarded {
 public:
  explicit Guarded(std::size_t bytes) : bytes_(bytes), memory_(static_cast<char*>(std::malloc(bytes + offset + guard))) {
    if (memory_ == nullptr) throw std::bad_alloc();
    std::memset(memory_.get(), fill, bytes + offset + guard);
  }
  void* data() const { return memory_.get() + offset; }
  void verify() const {
    for (std::size_t i = 0; i < guard; ++i)
      if (memory_.get()[offset + bytes_ + i] != fill) throw std::logic_error("attention wrote beyond its scratch");
  }

 private:
  struct Free {
    void operator()(char* p) const { std::free(p); }
  };
  static constexpr std::size_t offset = 4;
  static constexpr std::size_t guard = 4096;
  static constexpr char fill = 0x7f;  // as float32 or bfloat16 a very large number or NaN: to be noticed where it is used
  std::size_t bytes_;
  std::unique_ptr<char, Free> memory_;
};

// queries [n, D], keys and values [m, D], out [n, D]: float32, or uint16 for bfloat16; `repeat` times, for benchmarks.
void attention(const std::string& instruction_set, const Matrix& queries, const Matrix& keys, const Matrix& values,
               float scale, const Matrix& out, const std::optional<FloatMatrix>& probabilities,
               const std::optional<Places>& query_rows, const std::optional<FloatVector>& distance_bias,
               std::int64_t query_offset, std::int64_t window, const std::optional<FloatMatrix>& query_distances,
               const std::optional<FloatMatrix>& key_distances, const std::optional<Places>& distance_columns,
               std::int64_t repeat) {
  const Kernels& kernels = kernels_named(instruction_set);
  AttentionHead head = {};
  head.is_bfloat16 = queries.dtype() == nb::dtype<std::uint16_t>();
  check(head.is_bfloat16 || queries.dtype() == nb::dtype<float>(), "queries: float32, or uint16 for bfloat16");
  check(!head.is_bfloat16 || kernels.has_bfloat16, "this instruction set has no bfloat16");
  for (const Matrix* other : {&keys, &values, &out}) {
    check(other->dtype() == queries.dtype(), "queries, keys, values and out need one type");
    check(other->shape(1) == queries.shape(1), "queries, keys, values and out need one head size");
  }
  head.queries = queries.data();
  head.keys = keys.data();
  head.values = values.data();
  head.query_stride = stride_of(queries);
  head.stride = stride_of(keys);
  check(stride_of(values) == head.stride, "keys and values need one stride");
  head.num_queries = rows_of(queries);
  head.num_keys = rows_of(keys);
  head.head_size = static_cast<std::int64_t>(queries.shape(1));
  check(head.num_keys > 0 && head.head_size > 0, "at least one key and one element");
  check(rows_of(values) == head.num_keys, "as many values as keys");
  check(rows_of(out) == head.num_queries, "as many rows of out as queries");
  head.scale = scale;
  head.out = out.data();
  head.out_stride = stride_of(out);
  if (probabilities.has_value()) {
    check(static_cast<std::int64_t>(probabilities->shape(0)) == head.num_queries &&
              static_cast<std::int64_t>(probabilities->shape(1)) == head.num_keys,
          "probabilities: [queries, keys]");
    head.probabilities = probabilities->data();
  }
  if (query_rows.has_value()) {
    check(static_cast<std::int64_t>(query_rows->shape(0)) == head.num_queries, "query_rows: one a query");
    head.query_rows = query_rows->data();
  }
  head.query_offset = query_offset;
  check(window >= 0, "window: 0 for all keys, or how far a query sees");
  head.window = window;
  if (distance_bias.has_value()) {
    check(static_cast<std::int64_t>(distance_bias->shape(0)) == 2 * head.num_keys - 1, "distance_bias: [2 keys - 1]");
    head.distance_bias = distance_bias->data();
  }
  const bool by_distance = query_distances.has_value() || key_distances.has_value();
  std::vector<float> of_queries, of_keys;  // with room for what is read beyond their ends
  std::vector<std::int32_t> columns;
  if (by_distance) {
    check(distance_columns.has_value() && static_cast<std::int64_t>(distance_columns->shape(0)) == 2 * head.num_keys - 1,
          "distance_columns: [2 keys - 1]");
    check(window == 0 && !distance_bias.has_value(), "products with distances: without a bias or a window");
    const FloatMatrix& either = query_distances.has_value() ? *query_distances : *key_distances;
    head.distance_stride = static_cast<std::int64_t>(either.shape(1));
    const auto copied = [&](const std::optional<FloatMatrix>& products, std::int64_t rows, std::vector<float>& to) -> const float* {
      if (!products.has_value()) return nullptr;
      check(static_cast<std::int64_t>(products->shape(0)) == rows && static_cast<std::int64_t>(products->shape(1)) == head.distance_stride,
            "products with distances: [queries or keys, columns]");
      to.assign(products->data(), products->data() + products->size());
      to.resize(to.size() + distances_beyond);
      return to.data();
    };
    head.query_distances = copied(query_distances, head.num_queries, of_queries);
    head.key_distances = copied(key_distances, head.num_keys, of_keys);
    const std::int32_t* own = distance_columns->data();
    check(std::is_sorted(own, own + 2 * head.num_keys - 1) && own[0] >= 0 && own[2 * head.num_keys - 2] < head.distance_stride,
          "distance_columns: ascending columns that are there");
    const std::int64_t beyond = head.num_keys + distances_beyond;
    for (std::int64_t distance = -beyond; distance <= beyond; ++distance)
      columns.push_back(own[head.num_keys - 1 + std::clamp(distance, 1 - head.num_keys, head.num_keys - 1)]);
    head.distance_columns = columns.data() + beyond;
  }
  for (std::int64_t i = 0; i < head.num_queries && (window > 0 || distance_bias.has_value() || by_distance); ++i) {
    const std::int64_t place = (query_rows.has_value() ? query_rows->data()[i] : i) + query_offset;
    check(place >= 0 && place < head.num_keys, "queries: at places of keys, where places matter");
  }
  const Guarded scratch(kernels.attention_scratch(head.num_keys, head.head_size));
  const nb::gil_scoped_release released;
  for (std::int64_t i = 0; i < repeat; ++i) kernels.attention(head, scratch.data());
  scratch.verify();
}

}  // namespace

void bind_attention(nb::module_& module) {
  module.def("attention", &attention, nb::arg("instruction_set"), nb::arg("queries"), nb::arg("keys"), nb::arg("values"),
             nb::kw_only(), nb::arg("scale"), nb::arg("out"), nb::arg("probabilities").none() = nb::none(),
             nb::arg("query_rows").none() = nb::none(), nb::arg("distance_bias").none() = nb::none(),
             nb::arg("query_offset") = 0, nb::arg("window") = 0,
             nb::arg("query_distances").none() = nb::none(), nb::arg("key_distances").none() = nb::none(),
             nb::arg("distance_columns").none() = nb::none(),
             nb::arg("repeat") = 1);
}

}  // namespace layertap
