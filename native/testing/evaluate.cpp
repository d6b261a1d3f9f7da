#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>

#include <string>

#include "names.hpp"
#include "testing.hpp"

namespace nb = nanobind;

namespace layertap {
namespace {

using In = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Out = nb::ndarray<float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

Function function_named(std::string_view name) {
  static constexpr Names<Function, 11> names{{{"exp", Function::exp},
                                              {"exp_rounded", Function::exp_rounded},
                                              {"exp2_rounded", Function::exp2_rounded},
                                              {"gelu", Function::gelu},
                                              {"gelu_rounded", Function::gelu_rounded},
                                              {"gelu_tanh", Function::gelu_tanh},
                                              {"gelu_tanh_rounded", Function::gelu_tanh_rounded},
                                              {"silu", Function::silu},
                                              {"silu_rounded", Function::silu_rounded},
                                              {"tanh", Function::tanh},
                                              {"relu", Function::relu}}};
  return named(names, name, "function");
}

void evaluate(const std::string& instruction_set, const std::string& function, const In& in, const Out& out) {
  const Function f = function_named(function);
  if (in.shape(0) != out.shape(0)) throw nb::value_error("`in` and `out` need the same length");
  kernels_named(instruction_set).evaluate(f, in.data(), out.data(), static_cast<std::int64_t>(in.shape(0)));
}

}  // namespace

void bind_evaluate(nb::module_& module) {
  module.def("evaluate", &evaluate, nb::arg("instruction_set"), nb::arg("function"), nb::arg("in"), nb::arg("out").noconvert());
}

}  // namespace layertap
