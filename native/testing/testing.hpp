// One function a file: each adds its kernels to the module `_native_testing`.
#pragma once

#include <nanobind/nanobind.h>

namespace layertap {

void bind_products(nanobind::module_& module);
void bind_attention(nanobind::module_& module);
void bind_rows(nanobind::module_& module);
void bind_evaluate(nanobind::module_& module);
void bind_schedule(nanobind::module_& module);

}  // namespace layertap
