// Node @NODE@: B, S, Dmax and a spare for each slot of each tile.
#pragma once
#include <cstdint>

#include "plan.h"

constexpr std::int32_t parameters[plan::tiles][4 * plan::slots] = {
@PARAMETERS@
};
