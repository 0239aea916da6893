/* What frames are computed with, and how a usual one looks. Plain C, nothing of Python. */

#ifndef MOESAIC_BANK_H
#define MOESAIC_BANK_H

#include "frame.h"
#include "interface.h"

/* Set once. The experts in it come and go: `slots` says where each that is ready stands. */
struct bank {
    const struct kernels_interface *kernels;
    const int64_t *slots; /* [num_layers, num_experts], negative where there is none; Python's */
    int64_t num_layers, num_experts;
    struct experts experts; /* but for rows, pairs and results */
    /* What a batch takes where experts have no width, and for each expert and pair in it. */
    int64_t base_nanos, expert_nanos, pair_nanos;
    int64_t row_bytes, max_frame_bytes;
    uint32_t element_type; /* the experts' dtype, as frames say it */
    double most_pairs;     /* of a batch for each expert in it; beyond that torch computes it */
};

/* Whether a frame that came in a message of so many bytes obeys the contract
 * (services/expert/admission.py) in the way most do, but for its indices. */
int has_usual_fields(const struct bank *, const struct frame *, size_t message_bytes);

/* Whether each pair's row and expert are there, and the expert is ready. Then `pair_rows` and
 * `slots`, with room for each pair, are set. */
int look_up(const struct bank *, const struct frame *, int64_t *pair_rows, int64_t *slots);

static inline int64_t num_pairs_of(const struct frame *frame) {
    return (int64_t)(frame->pair_rows.count / WORD_BYTES);
}

#endif
