#include "bindings.hpp"

void layertap::bind_attention(nanobind::module_&) {}
