#include "machine.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "bindings.hpp"
#include "kernels.hpp"

namespace {

// Of an encoder, by the names that users give them; the ones that any instruction set has come first.
std::vector<std::string> precisions(const std::string& instruction_set) {
  const layertap::Kernels* kernels = layertap::kernels_of(instruction_set.c_str());
  if (kernels == nullptr) throw std::invalid_argument("this machine has no instruction set '" + instruction_set + "'");
  std::vector<std::string> found = {"float32", "float32-high"};
  if (kernels->has_bfloat16) found.emplace_back("bfloat16");
  if (kernels->has_int8) found.emplace_back("int8");
  return found;
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
