#include "bindings.hpp"

void layertap::bind_rows(nanobind::module_&) {}
