#include <nanobind/nanobind.h>

#include "bindings.hpp"

NB_MODULE(_native, module) {
  // What is still referenced when the interpreter ends, such as by a closure, is no matter for users.
  nanobind::set_leak_warnings(false);
  module.doc() = "Kernels for processors, reached through `layertap.backends.native`.";
  layertap::bind_machine(module);
  layertap::bind_encoder(module);
}
