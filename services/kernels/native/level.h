/* All kernels of one level; included by the file of each level, which defines LEVEL, LANES, TARGET
 * and TILE_ROWS, HAS_BF16_DOT where the processor multiplies bfloat16 itself, and MATRIX_UNIT, the
 * file that has one, where there is one. The order matters: later files use earlier ones. */

#include "vector.h"

#include "product.h"

#include "strip.h"

#include "transposed.h"

#ifdef MATRIX_UNIT
#include MATRIX_UNIT

#include "matrix_product.h"

#include "matrix_transposed.h"
#define TILED_OUTPUTS UNIT_OUTPUTS
#define ARRANGES_ROWS 1
#else
#define TILED_OUTPUTS TILE_OUTPUTS
#define ARRANGES_ROWS 0
#endif

#include "attention.h"
#include "combine.h"
#include "elementwise.h"
#include "gating.h"
#include "routing.h"
#include "vocabulary.h"

/* Whether the product was the matrix unit's. */
INLINE int is_done_by_unit(const struct product *p) {
#ifdef MATRIX_UNIT
    if (p->dtype == BFLOAT16 && p->is_transposed) multiply_transposed_by_unit(p);
    if (p->dtype == BFLOAT16 && !p->is_transposed) multiply_by_unit(p);
    return p->dtype == BFLOAT16;
#else
    (void)p;
    return 0;
#endif
}

TARGET static void multiply(const struct product *p) {
    if (is_done_by_unit(p)) return;
    if (p->is_transposed)
        multiply_transposed(p);
    else if (p->dtype == FLOAT32)
        multiply_as(p, FLOAT32, FLOAT32);
    else if (p->out_dtype == BFLOAT16)
        multiply_as(p, BFLOAT16, BFLOAT16);
    else
        multiply_as(p, BFLOAT16, FLOAT32);
}

#define JOINED(a, b) a##b
#define LEVEL_NAME(level) JOINED(level_, level)
#define QUOTED(name) #name
#define LEVEL_STRING(level) QUOTED(level)

const struct level LEVEL_NAME(LEVEL) = {
    .name = LEVEL_STRING(LEVEL),
    .multiply = multiply,
    .tile_outputs = TILED_OUTPUTS,
    .arranges_rows = ARRANGES_ROWS,
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
