/* A row of logits whose tokens are put in order as far as a draw from them needs it, the same at
 * every level. */

#ifndef MOESAIC_ORDER_H
#define MOESAIC_ORDER_H

#include "kernels.h"

/* What a row's draw is where the rounding of sums could decide. */
#define UNCERTAIN (-1)

struct likely {
    double share;
    float logit;
    int32_t token;
};

/* How a row's token is drawn, as sampling.py says it, and the point in [0, 1) of the draw. */
struct choice {
    double temperature, top_k, top_p, min_p, point;
};

/* A row, with what is found on the way. */
struct order {
    const struct level *level;
    struct vocabulary row;
    double sums[VOCABULARY_BINS]; /* of the shares, by bin */
    double total;                 /* of them */
    int32_t *tokens;              /* room for [width], and one more */
    struct likely *picked;        /* as many */
};

/* The token of a row whose logits, width and room are set, or UNCERTAIN. */
int64_t drawn(struct order *order, const struct choice *choice);

#endif
