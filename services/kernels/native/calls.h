/* What Python may call. Arguments are described where the function is defined. */

#ifndef MOESAIC_CALLS_H
#define MOESAIC_CALLS_H

#include "arguments.h"

DECLARE_CALL(linear);
DECLARE_CALL(describe_experts);
DECLARE_CALL(gated_experts);
DECLARE_CALL(rms_norm);
DECLARE_CALL(attend);
DECLARE_CALL(apply_rotary);
DECLARE_CALL(describe_layer);
DECLARE_CALL(describe_rows);
DECLARE_CALL(describe_cache);
DECLARE_CALL(describe_between);
DECLARE_CALL(attention_layer);
DECLARE_CALL(between);
DECLARE_CALL(gate);
DECLARE_CALL(scatter);
DECLARE_CALL(combine);
DECLARE_CALL(draw);

/* The level in use. */
extern const struct level *active;

/* Slots and numbers of keys stay below, so that `most_keys` can add them before it compares them
 * with the cache. */
#define MOST_SLOTS (INT64_MAX / 2)

/* The most keys that any token sees, of all of which `num_seen` is raised by the number; -1 with an
 * error set when some token would see slots beyond the cache. */
int64_t most_keys(const struct attention *call, int64_t num_slots, int64_t *num_seen);

#endif
