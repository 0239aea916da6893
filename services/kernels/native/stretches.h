/* A layer's pairs by the service that computes them: arithmetic on indices, the same at every
 * level, nothing of Python. */

#ifndef MOESAIC_STRETCHES_H
#define MOESAIC_STRETCHES_H

#include <stdint.h>

/* A service's number is below; there is a stretch for each. */
#define MOST_SERVICES (1 << 15)

/* A service's pairs: how many, where they begin in the arrays of results, and on how many rows and
 * of how many experts they are. */
struct stretch {
    int64_t start, num_pairs, num_rows, num_experts;
};

/* The pairs of one service keep their order. A pair's position is its index in `experts`; of `rows`
 * as many are used from the service's start on as it has rows, each once. */
struct scatter {
    const int64_t *experts; /* [num_pairs], a negative one for a pair that is not computed */
    const int64_t *owners;  /* [num_experts], -1 for nobody */
    int64_t num_pairs, num_experts, top_k;
    int64_t *positions, *rows;          /* [num_pairs] */
    uint32_t *pair_rows, *pair_experts; /* [num_pairs] */
    struct stretch *stretches;          /* by service, nobody's first */
    int64_t num_stretches;
    char *is_met; /* [num_experts], in the memory of the stretches */
};

/* Makes a stretch for nobody and for each service, to be freed with `free`. 0, or -1 when memory is
 * short. */
int make_stretches(struct scatter *);

/* Sorts the pairs into the stretches. */
void scatter_pairs(const struct scatter *);

#endif
