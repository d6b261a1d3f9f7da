#include "machine.hpp"

#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "bindings.hpp"

void layertap::bind_machine(nanobind::module_& module) {
  module.def("instruction_sets", &instruction_sets);
  module.def("available_threads", &available_threads);
}
