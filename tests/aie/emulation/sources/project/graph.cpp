#include "graph.h"

scaling_graph graph;

#if defined(__X86SIM__) || defined(__AIESIM__)
int main() {
  graph.init();
  for (unsigned t = 0; t < tiles; ++t) {
    const int32 values[2] = {static_cast<int32>(3 * t + 1), 1};
    graph.update(graph.parameters[t], values, 2);
  }
  graph.run(4);
  graph.end();
  return 0;
}
#endif
