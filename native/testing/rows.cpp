// Kernels over rows, for tests.
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <algorithm>
#include <optional>
#include <string>

#include "names.hpp"
#include "testing.hpp"

namespace nb = nanobind;

namespace layertap {
namespace {

template <class T, std::size_t dimensions>
using Array = nb::ndarray<T, nb::ndim<dimensions>, nb::c_contig, nb::device::cpu>;
using Vector = Array<const float, 1>;
using FloatRows = Array<const float, 2>;
using Ids = Array<const std::int32_t, 1>;
using AnyRows = nb::ndarray<nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using AnyParts = nb::ndarray<nb::ndim<3>, nb::c_contig, nb::device::cpu>;

[[noreturn]] void refuse(const char* why) { throw nb::value_error(why); }

template <class A>
std::int64_t size(const A& array, std::size_t axis) {
  return static_cast<std::int64_t>(array.shape(axis));
}

void check_out(std::int64_t rows, std::int64_t columns, std::int64_t out_rows, std::int64_t out_stride) {
  if (out_rows != rows || out_stride < padded(columns)) refuse("out: as many rows as in, and at least the padded columns");
}

void check_columns(std::int64_t columns, std::int64_t in_stride) {
  if (columns < 1 || columns > in_stride) refuse("columns: from 1 to those of `in`");
}

void normalize(const std::string& instruction_set, const FloatRows& in, std::int64_t columns, const Vector& weight,
               const std::optional<Vector>& bias, float eps, bool by_root_mean_square, const Array<float, 2>& out,
               const std::optional<Array<std::uint16_t, 2>>& rounded) {
  const Kernels& kernels = kernels_named(instruction_set);
  check_columns(columns, size(in, 1));
  check_out(size(in, 0), columns, size(out, 0), size(out, 1));
  if (rounded) check_out(size(in, 0), columns, size(*rounded, 0), size(*rounded, 1));
  if (size(weight, 0) < columns || (bias && size(*bias, 0) < columns)) refuse("weight and bias: one a column");
  const RowNorm norm{weight.data(), bias ? bias->data() : nullptr, eps, by_root_mean_square};
  kernels.normalize(in.data(), size(in, 1), size(in, 0), columns, norm, out.data(), size(out, 1),
                    rounded ? rounded->data() : nullptr, rounded ? size(*rounded, 1) : 0);
}

// rows: float32, or uint16 for bfloat16; heads of twice the columns that cosines and sines have, from column 0 on.
void rotate(const std::string& instruction_set, const AnyRows& rows, std::int64_t num_heads, const FloatRows& cosines,
            const FloatRows& sines, const std::optional<Ids>& places, std::int64_t first_place) {
  const Kernels& kernels = kernels_named(instruction_set);
  const std::int64_t half = size(cosines, 1);
  if (rows.itemsize() != 4 && rows.itemsize() != 2) refuse("rows: float32, or 16 bits wide");
  if (size(sines, 0) != size(cosines, 0) || size(sines, 1) != half) refuse("cosines and sines: of one shape");
  if (num_heads < 1 || half < 1 || num_heads * 2 * half > size(rows, 1)) refuse("rows: as wide as their heads");
  if (places && size(*places, 0) != size(rows, 0)) refuse("places: one a row");
  for (std::int64_t m = 0; m < size(rows, 0); ++m) {
    const std::int64_t place = places ? places->data()[m] : first_place + m;
    if (place < 0 || place >= size(cosines, 0)) refuse("places: beyond the angles");
  }
  kernels.rotate({rows.data(), rows.itemsize() == 2, size(rows, 1), size(rows, 0), num_heads, 2 * half, cosines.data(),
                  sines.data(), places ? places->data() : nullptr, first_place});
}

void to_operand(const std::string& instruction_set, const FloatRows& in, std::int64_t columns, const std::string& format,
                const AnyParts& out, const std::optional<Array<float, 2>>& steps) {
  const Kernels& kernels = kernels_named(instruction_set);
  const Format own = format_named(format);
  check_columns(columns, size(in, 1));
  check_out(size(in, 0), columns, size(out, 1), size(out, 2));
  if (size(out, 0) != parts_of(own) || static_cast<std::int64_t>(out.itemsize()) != value_bytes(own)) refuse("out: not as the format has it");
  if ((own == Format::int8) != steps.has_value()) refuse("steps: for int8, and for it alone");
  if (steps && (size(*steps, 0) != 2 || size(*steps, 1) != size(in, 0))) refuse("steps: a scale and a zero point a row");
  float* scales = steps ? steps->data() : nullptr;
  float* zeros = steps ? scales + size(in, 0) : nullptr;
  const Operand operand{out.data(), size(out, 2), size(out, 1) * size(out, 2), scales, zeros};
  kernels.to_operand(in.data(), size(in, 1), size(in, 0), columns, own, operand);
}

void widen(const std::string& instruction_set, const Array<const std::uint16_t, 2>& in, std::int64_t columns,
           const Array<float, 2>& out) {
  const Kernels& kernels = kernels_named(instruction_set);
  check_columns(columns, size(in, 1));
  if (size(in, 1) % padding != 0) refuse("in: padded columns");
  check_out(size(in, 0), columns, size(out, 0), size(out, 1));
  kernels.widen(in.data(), size(in, 1), size(in, 0), columns, out.data(), size(out, 1));
}

void gather_row(const std::string& instruction_set, const std::string& how, const Array<float, 1>& total, const Vector& row,
                float weight) {
  const Kernels& kernels = kernels_named(instruction_set);
  const std::int64_t columns = size(total, 0);
  if (size(row, 0) != columns) refuse("row: as long as total");
  if (how == "set") return kernels.set_row(total.data(), row.data(), weight, columns);
  if (how == "add") return kernels.add_row(total.data(), row.data(), weight, columns);
  if (how == "max") return kernels.max_row(total.data(), row.data(), columns);
  if (how == "min") return kernels.min_row(total.data(), row.data(), columns);
  refuse("how: set, add, max or min");
}

// 16-bit tables come as uint16; `is_bfloat16` says how to read them.
Table table_of(const std::optional<AnyRows>& array, bool is_bfloat16, std::int64_t columns) {
  if (!array) return {nullptr, Table::Type::float32, 0, 0};
  if (array->itemsize() != 4 && array->itemsize() != 2) refuse("tables: float32, or 16 bits wide");
  if (size(*array, 1) < columns) refuse("tables: fewer columns");
  const Table::Type narrow = is_bfloat16 ? Table::Type::bfloat16 : Table::Type::float16;
  return {array->data(), array->itemsize() == 4 ? Table::Type::float32 : narrow, size(*array, 0), size(*array, 1)};
}

const std::int32_t* ids_of(const std::optional<Ids>& ids, const Table& table, std::int64_t rows) {
  if (!ids) return nullptr;
  if (size(*ids, 0) != rows) refuse("ids: one a row");
  for (std::int64_t i = 0; i < rows; ++i)
    if (ids->data()[i] < 0 || ids->data()[i] >= table.rows) refuse("ids: beyond the table");
  return ids->data();
}

void embed(const std::string& instruction_set, bool is_bfloat16, const std::optional<AnyRows>& words,
           const std::optional<AnyRows>& types, const std::optional<AnyRows>& positions, const Ids& input_ids,
           const std::optional<Ids>& token_type_ids, const std::optional<Ids>& position_ids, std::int64_t columns,
           const Array<float, 2>& out) {
  const Kernels& kernels = kernels_named(instruction_set);
  const std::int64_t rows = size(input_ids, 0);
  if (columns < 1 || !words) refuse("words and at least one column are needed");
  check_out(rows, columns, size(out, 0), size(out, 1));
  EmbeddingRows in{table_of(words, is_bfloat16, columns), table_of(types, is_bfloat16, columns),
                   table_of(positions, is_bfloat16, columns), nullptr, nullptr, nullptr};
  in.input_ids = ids_of(input_ids, in.words, rows);
  if (types) in.token_type_ids = ids_of(token_type_ids, in.types, rows);
  if (positions) in.position_ids = ids_of(position_ids, in.positions, rows);
  if (positions && in.position_ids == nullptr) refuse("position_ids: there is a table of them");
  kernels.embed(in, rows, columns, out.data(), size(out, 1));
}

}  // namespace

void bind_rows(nb::module_& module) {
  using namespace nb::literals;
  module.def("normalize", &normalize, "instruction_set"_a, "in"_a, "columns"_a, "weight"_a, "bias"_a.none(), "eps"_a,
             "by_root_mean_square"_a, "out"_a.noconvert(), "rounded"_a.noconvert().none());
  module.def("rotate", &rotate, "instruction_set"_a, "rows"_a.noconvert(), "num_heads"_a, "cosines"_a, "sines"_a,
             "places"_a.none(), "first_place"_a);
  module.def("to_operand", &to_operand, "instruction_set"_a, "in"_a, "columns"_a, "format"_a, "out"_a.noconvert(), "steps"_a.noconvert().none());
  module.def("widen", &widen, "instruction_set"_a, "in"_a, "columns"_a, "out"_a.noconvert());
  module.def("gather_row", &gather_row, "instruction_set"_a, "how"_a, "total"_a.noconvert(), "row"_a, "weight"_a);
  module.def("embed", &embed, "instruction_set"_a, "is_bfloat16"_a, "words"_a.none(), "types"_a.none(), "positions"_a.none(),
             "input_ids"_a, "token_type_ids"_a.none(), "position_ids"_a.none(), "columns"_a, "out"_a.noconvert());
}

}  // namespace layertap
