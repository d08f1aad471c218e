// The graph, and a test bench that runs it once over the vectors in data/.
#include "graph.h"

#include "parameters.h"

HccsGraph hccs_graph;

#if defined(__X86SIM__) || defined(__AIESIM__)
int main() {
  hccs_graph.init();
  for (unsigned t = 0; t < plan::tiles; ++t) {
    hccs_graph.update(hccs_graph.params[t], parameters[t], 4 * plan::slots);
  }
  hccs_graph.run(plan::iterations);
  hccs_graph.end();
  return 0;
}
#endif
