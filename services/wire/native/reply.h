/* A reply, or a grant alone: protobuf's bytes and what they mean. Plain C, nothing of Python.
 * Replies with failures or an error are rare, and left to the generated class. */

#ifndef MOESAIC_REPLY_H
#define MOESAIC_REPLY_H

#include "protobuf.h"

/* DispatchResponse's field beside its body. */
#define GRANTED_PAIRS 2

/* ServerTimings' fields: decode_nanos, queue_nanos, compute_nanos and encode_nanos. */
enum timing { DECODE_NANOS, QUEUE_NANOS, COMPUTE_NANOS, ENCODE_NANOS, NUM_TIMINGS };

/* As protos/moesaic/v1/expert.proto says. Bytes are borrowed. */
struct reply {
    uint64_t frame_id, granted_pairs, timings[NUM_TIMINGS];
    uint32_t batch_frames, checksum;
    struct bytes rows;
    int has_timings, has_checksum;
};

/* Over its number and its rows, which have to be where they say. */
uint32_t checksum_of_reply(const struct reply *);

/* Writes all of the reply but the bytes of its rows, which follow; `granted_pairs` comes after
 * these. */
void put_reply_head(struct sink *to, const struct reply *);

/* Reads a DispatchResponse. Whether it is laid out in the usual way, with a right checksum if any;
 * `has_reply` says whether there is more in it than a grant. */
int read_response(struct bytes message, struct reply *, int *has_reply);

#endif
