// One function a file: each adds its part to the module.
#pragma once

#include <nanobind/nanobind.h>

#include <string>

#include "kernels.hpp"

namespace layertap {

void bind_machine(nanobind::module_& module);
void bind_products(nanobind::module_& module);
void bind_attention(nanobind::module_& module);
void bind_rows(nanobind::module_& module);
void bind_encoder(nanobind::module_& module);
void bind_evaluate(nanobind::module_& module);

// As `kernels_of`; a ValueError where it is null.
inline const Kernels& kernels_named(const std::string& instruction_set) {
  const Kernels* found = kernels_of(instruction_set.c_str());
  if (found == nullptr) throw nanobind::value_error(("not on this processor: " + instruction_set).c_str());
  return *found;
}

}  // namespace layertap
