#include "bindings.hpp"

void layertap::bind_products(nanobind::module_&) {}
