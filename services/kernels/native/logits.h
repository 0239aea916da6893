/* A row of logits, on its way to the token that is drawn from it. */

#ifndef MOESAIC_LOGITS_H
#define MOESAIC_LOGITS_H

#include <stdint.h>

/* Tokens whose highest logit is kept, and parts of the range of logits of which sums are. */
#define VOCABULARY_BLOCK 64
#define VOCABULARY_BINS 512

/* One row of logits, numbers or -inf, and what passes over it found.
 *
 * A logit's share is what its probability is beside the highest one's: e to the power of
 * (logit - highest) * inverse. Its bin is (highest - logit) * bins_per_logit, or VOCABULARY_BINS
 * where that is beyond them. */
struct vocabulary {
    const float *logits; /* [width] */
    int64_t width;
    float *highest_of;     /* [blocks] */
    float highest, lowest; /* of all but -inf */
    float bins_per_logit;
    float least; /* below it no logit matters to `sum_of_at_least` */
    double inverse;
};

#endif
