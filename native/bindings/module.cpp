#include <nanobind/nanobind.h>

#include "bindings.hpp"

NB_MODULE(_native, module) {
  // Objects that are still referenced when the interpreter ends, for example by a closure, do not concern users.
  nanobind::set_leak_warnings(false);
  module.doc() = "Kernels for processors, reached through `layertap.backends.native`.";
  layertap::bind_machine(module);
  layertap::bind_encoder(module);
}
