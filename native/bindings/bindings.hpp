// One function a file: each adds its part to the module.
#pragma once

#include <nanobind/nanobind.h>

namespace layertap {

void bind_machine(nanobind::module_& module);
void bind_encoder(nanobind::module_& module);

}  // namespace layertap
