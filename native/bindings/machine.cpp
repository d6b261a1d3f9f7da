#include "machine.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings.hpp"
#include "names.hpp"

namespace {

// Names of the precisions that an instruction set offers; those that all offer come first.
std::vector<std::string> precisions(const std::string& instruction_set) {
  const layertap::Kernels& kernels = layertap::kernels_named(instruction_set);
  std::vector<std::string> names = {"float32", "float32-high"};
  if (kernels.has_bfloat16) names.emplace_back("bfloat16");
  if (kernels.has_int8) names.emplace_back("int8");
  return names;
}

std::string compiler() {
#if defined(__clang__)
  return "Clang " __clang_version__;
#else
  return "GCC " __VERSION__;
#endif
}

}  // namespace

void layertap::bind_machine(nanobind::module_& module) {
  using namespace nanobind::literals;
  module.def("instruction_sets", &instruction_sets);
  module.def("available_threads", &available_threads);
  module.def("compiler", &compiler);
  module.def("precisions", &precisions, "instruction_set"_a);
}
