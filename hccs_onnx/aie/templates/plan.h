// What every tile does, and where. Nodes that are worked on alike have the same file.
#pragma once

namespace plan {

// A row has n codes, in memory padded to `columns`, a multiple of 32. In each iteration a tile computes `slots` blocks
// of `rows` rows; each block has its own parameters.
constexpr unsigned n = @N@;
constexpr unsigned columns = @COLUMNS@;
constexpr unsigned rows = @ROWS@;
constexpr unsigned slots = @SLOTS@;
constexpr unsigned iterations = @ITERATIONS@;
constexpr unsigned codes = slots * rows * columns;

// Bytes from the start of a tile's data memory: two buffers a port, one filled or emptied while the kernel has the other.
constexpr unsigned input_address[2] = {@INPUT_ADDRESSES@};
constexpr unsigned output_address[2] = {@OUTPUT_ADDRESSES@};
constexpr unsigned stack_bytes = @STACK_BYTES@;

struct Place {
  unsigned column, row;
};
constexpr unsigned tiles = @TILES@;
constexpr Place place[tiles] = {
@PLACES@
};

}  // namespace plan
