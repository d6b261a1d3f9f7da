#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <string>

#include "bindings.hpp"
#include "kernels.hpp"

namespace nb = nanobind;

namespace layertap {
namespace {

using In = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Out = nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

Function function_of(const std::string& name) {
  if (name == "exp") return Function::exp;
  if (name == "exp_rounded") return Function::exp_rounded;
  if (name == "exp2_rounded") return Function::exp2_rounded;
  if (name == "gelu") return Function::gelu;
  if (name == "gelu_rounded") return Function::gelu_rounded;
  if (name == "gelu_tanh") return Function::gelu_tanh;
  if (name == "gelu_tanh_rounded") return Function::gelu_tanh_rounded;
  if (name == "silu") return Function::silu;
  if (name == "silu_rounded") return Function::silu_rounded;
  if (name == "tanh") return Function::tanh;
  if (name == "relu") return Function::relu;
  throw nb::value_error(("no such function: " + name).c_str());
}

void evaluate(const std::string& instruction_set, const std::string& function, const In& in, const Out& out) {
  const Function f = function_of(function);
  if (in.shape(0) != out.shape(0)) throw nb::value_error("`in` and `out` need the same length");
  kernels_named(instruction_set).evaluate(f, in.data(), out.data(), static_cast<std::int64_t>(in.shape(0)));
}

}  // namespace

void bind_evaluate(nb::module_& module) {
  module.def("evaluate", &evaluate, nb::arg("instruction_set"), nb::arg("function"), nb::arg("in"), nb::arg("out").noconvert());
}

}  // namespace layertap
