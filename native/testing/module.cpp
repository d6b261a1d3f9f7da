#include <nanobind/nanobind.h>

#include "bindings/bindings.hpp"
#include "testing.hpp"

NB_MODULE(_native_testing, module) {
  nanobind::set_leak_warnings(false);
  module.doc() = "Single kernels on numpy arrays, for tests and benchmarks. Not part of the wheel.";
  layertap::bind_machine(module);
  layertap::bind_products(module);
  layertap::bind_attention(module);
  layertap::bind_rows(module);
  layertap::bind_evaluate(module);
  layertap::bind_schedule(module);
}
