// ADF graphs on the host: describe, initialise, run and end, reading and writing PLIO files as x86simulator does.
#pragma once

#include "adf/buffer.hpp"
#include "adf/endpoint.hpp"
#include "adf/graph.hpp"
#include "adf/kernel_node.hpp"
#include "adf/plio.hpp"
#include "adf/runner.hpp"
#include "adf/stream.hpp"
#include "emulation/types.hpp"
