#include "bindings.hpp"

NB_MODULE(_native, module) {
  module.doc() = "Kernels for processors; `layertap.backends.native` is the door to them.";
  layertap::bind_machine(module);
  layertap::bind_products(module);
  layertap::bind_attention(module);
  layertap::bind_rows(module);
  layertap::bind_encoder(module);
  layertap::bind_evaluate(module);
}
