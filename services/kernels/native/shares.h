/* Products and attention divided among a crew: by outputs and by heads, never within a sum, so that
 * bits do not depend on the number of threads. */

#ifndef MOESAIC_SHARES_H
#define MOESAIC_SHARES_H

#include "kernels.h"
#include "workers.h"

/* Parts of a product: so many neighbouring outputs, whose weights are long enough to be read at
 * full speed. */
int64_t outputs_a_part(const struct level *level, const struct product *product);
int64_t num_product_parts(const struct product *product, int64_t outputs_each);
struct product product_part(const struct product *product, int64_t outputs_each, int64_t part);

void multiply_by(const struct crew *crew, const struct level *level, const struct product *product);

/* Bytes for the scores of all threads, where tokens see at most so many keys; never 0. */
static inline int64_t crew_score_room(const struct crew *crew, const struct attention *call,
                                      int64_t most) {
    return crew->num_threads * score_room(call, most);
}

/* `scores` are the first thread's; the others' follow it. */
void attend_by(const struct crew *crew, const struct level *level, const struct attention *call,
               int64_t most);

#endif
