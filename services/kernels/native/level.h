/* All kernels of one level; included by the file of each level, which defines LEVEL, LANES, TARGET
 * and TILE_ROWS, and HAS_BF16_DOT where the processor multiplies bfloat16 itself. The order
 * matters: later files use earlier ones. */

#include "vector.h"

#include "product.h"

#include "transposed.h"

#include "attention.h"
#include "combine.h"
#include "elementwise.h"
#include "gating.h"
#include "routing.h"
#include "vocabulary.h"

#define JOINED(a, b) a##b
#define LEVEL_NAME(level) JOINED(level_, level)
#define QUOTED(name) #name
#define LEVEL_STRING(level) QUOTED(level)

const struct level LEVEL_NAME(LEVEL) = {
    .name = LEVEL_STRING(LEVEL),
    .multiply = multiply,
    .gate = gate,
    .attend = attend,
    .add = add,
    .normalise = normalise,
    .rotate = rotate,
    .combine = combine,
    .route = route,
    .survey = survey,
    .tally = tally,
    .pick = pick,
    .sum_of_at_least = sum_of_at_least,
};
