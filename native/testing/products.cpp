#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <stdexcept>

#include "names.hpp"
#include "testing.hpp"

// Single products on numpy arrays, for tests and benchmarks. bfloat16 values are passed as uint16.
namespace layertap {

namespace nb = nanobind;

namespace {

using FloatMatrix = nb::ndarray<const float, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using FloatVector = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

struct Free {
  void operator()(void* p) const { ::operator delete[](p, std::align_val_t(64)); }
};
using Bytes = std::unique_ptr<void, Free>;

Bytes zeroed(std::size_t size) {
  Bytes bytes(::operator new[](size, std::align_val_t(64)));
  std::memset(bytes.get(), 0, size);
  return bytes;
}

// Packed weights, as a Python object.
class Packed {
 public:
  Packed(const std::string& instruction_set, const std::string& format, const FloatMatrix& weights)
      : kernels_(kernels_named(instruction_set)) {
    matrix_.format = product_format_named(kernels_, format);
    matrix_.rows = static_cast<std::int64_t>(weights.shape(0));
    matrix_.inner = static_cast<std::int64_t>(weights.shape(1));
    if (matrix_.rows == 0 || matrix_.inner == 0) throw std::invalid_argument("weights [N, K]: neither may be 0");
    bytes_ = kernels_.packed_bytes(matrix_.format, matrix_.rows, matrix_.inner);
    const auto columns = static_cast<std::size_t>(padded(matrix_.rows));
    data_ = zeroed(bytes_);
    scales_ = zeroed(columns * sizeof(float));
    sums_ = zeroed(columns * sizeof(float));
    matrix_.data = data_.get();
    matrix_.scales = static_cast<float*>(scales_.get());
    matrix_.sums = static_cast<float*>(sums_.get());
    kernels_.pack(weights.data(), matrix_.inner, matrix_);
  }

  const Kernels& kernels() const { return kernels_; }
  const PackedMatrix& matrix() const { return matrix_; }
  std::size_t bytes() const { return bytes_; }
  nb::ndarray<nb::numpy, const std::uint8_t> data() const {
    return nb::ndarray<nb::numpy, const std::uint8_t>(static_cast<const std::uint8_t*>(matrix_.data), {bytes_});
  }
  nb::ndarray<nb::numpy, const float> scales() const {
    return nb::ndarray<nb::numpy, const float>(matrix_.scales, {static_cast<std::size_t>(matrix_.rows)});
  }
  nb::ndarray<nb::numpy, const float> sums() const {
    return nb::ndarray<nb::numpy, const float>(matrix_.sums, {static_cast<std::size_t>(matrix_.rows)});
  }

 private:
  const Kernels& kernels_;
  PackedMatrix matrix_ = {};
  std::size_t bytes_ = 0;
  Bytes data_, scales_, sums_;
};

void check(bool holds, const char* why) {
  if (!holds) throw std::invalid_argument(why);
}

// a: [parts * M, stride] values of the format, as bytes. Rows [row_begin, row_end) and panels [panel_begin, panel_end)
// of `out` are written; `repeat` times, for benchmarks.
void product(const Packed& w, nb::ndarray<const std::uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu> a,
             std::optional<FloatVector> row_scales, std::optional<FloatVector> row_zeros,
             std::optional<FloatVector> bias, const std::string& activation, std::optional<FloatMatrix> residual,
             std::optional<nb::ndarray<nb::ro, nb::ndim<2>, nb::c_contig, nb::device::cpu>> factors,
             nb::ndarray<nb::ndim<2>, nb::c_contig, nb::device::cpu> out,
             std::int64_t row_begin, std::int64_t row_end, std::int64_t panel_begin, std::int64_t panel_end,
             std::int64_t repeat) {
  const PackedMatrix& matrix = w.matrix();
  const bool to_bfloat16 = out.dtype() == nb::dtype<std::uint16_t>();
  check(to_bfloat16 || out.dtype() == nb::dtype<float>(), "out: float32, or uint16 for bfloat16");
  const auto rows = static_cast<std::int64_t>(out.shape(0));
  const std::int64_t parts = parts_of(matrix.format);
  const std::int64_t row_bytes = static_cast<std::int64_t>(a.shape(1));
  Operand in = {};
  in.data = const_cast<std::uint8_t*>(a.data());
  in.stride = row_bytes / value_bytes(matrix.format);
  in.part_stride = rows * in.stride;
  check(in.stride % padding == 0 && in.stride >= matrix.inner, "a: stride a multiple of 64, at least K");
  check(static_cast<std::int64_t>(a.shape(0)) == (rows + 15) / 16 * 16 * parts || parts == 1,
        "a: a multiple of 16 rows a part");
  check(static_cast<std::int64_t>(a.shape(0)) >= (rows + 15) / 16 * 16 * parts, "a: M rows, up to a multiple of 16");
  if (parts > 1) in.part_stride = (rows + 15) / 16 * 16 * in.stride;
  if (matrix.format == Format::int8) {
    check(row_scales.has_value() && static_cast<std::int64_t>(row_scales->shape(0)) >= rows, "row_scales: M of them");
    in.scales = const_cast<float*>(row_scales->data());
    check(row_zeros.has_value() && static_cast<std::int64_t>(row_zeros->shape(0)) >= rows, "row_zeros: M of them");
    in.zeros = const_cast<float*>(row_zeros->data());
  }
  check(0 <= row_begin && row_begin <= row_end && row_end <= rows, "rows: within out");
  check(0 <= panel_begin && panel_begin <= panel_end && panel_end <= matrix.panels, "panels: within the matrix");
  Epilogue epilogue = {};
  epilogue.activation = activation_named(activation);
  if (bias.has_value()) {
    check(static_cast<std::int64_t>(bias->shape(0)) == padded(matrix.rows), "bias: N, up to a multiple of 64");
    epilogue.bias = bias->data();
  }
  if (residual.has_value()) {
    check(static_cast<std::int64_t>(residual->shape(0)) == rows &&
              static_cast<std::int64_t>(residual->shape(1)) >= padded(matrix.rows),
          "residual: [M, N up to a multiple of 64]");
    epilogue.residual = residual->data();
    epilogue.residual_stride = static_cast<std::int64_t>(residual->shape(1));
  }
  epilogue.out = out.data();
  epilogue.out_stride = static_cast<std::int64_t>(out.shape(1));
  epilogue.out_is_bfloat16 = to_bfloat16;
  check(epilogue.out_stride >= padded(matrix.rows), "out: N, up to a multiple of 64");
  if (factors.has_value()) {
    check(factors->dtype() == out.dtype() && factors->shape(0) == out.shape(0) && factors->shape(1) == out.shape(1),
          "factors: of the shape and type of out");
    epilogue.factors = factors->data();
  }
  const Bytes scratch = zeroed(w.kernels().product_scratch(matrix.inner));
  const nb::gil_scoped_release released;
  for (std::int64_t i = 0; i < repeat; ++i)
    w.kernels().product(in, row_begin, row_end, matrix, panel_begin, panel_end, epilogue, scratch.get());
}

}  // namespace

void bind_products(nb::module_& module) {
  nb::class_<Packed>(module, "Packed")
      .def(nb::init<const std::string&, const std::string&, const FloatMatrix&>(), nb::arg("instruction_set"),
           nb::arg("format"), nb::arg("weights"))
      .def_prop_ro("instruction_set", [](const Packed& packed) { return packed.kernels().name; })
      .def_prop_ro("panels", [](const Packed& packed) { return packed.matrix().panels; })
      .def_prop_ro("data", &Packed::data, nb::rv_policy::reference_internal)
      .def_prop_ro("scales", &Packed::scales, nb::rv_policy::reference_internal)
      .def_prop_ro("sums", &Packed::sums, nb::rv_policy::reference_internal);
  module.def("product", &product, nb::arg("weights"), nb::arg("a"), nb::kw_only(), nb::arg("row_scales").none() = nb::none(),
             nb::arg("row_zeros").none() = nb::none(),
             nb::arg("bias").none() = nb::none(), nb::arg("activation") = "none", nb::arg("residual").none() = nb::none(),
             nb::arg("factors").none() = nb::none(),
             nb::arg("out"), nb::arg("row_begin"), nb::arg("row_end"), nb::arg("panel_begin"), nb::arg("panel_end"),
             nb::arg("repeat") = 1);
}

}  // namespace layertap
