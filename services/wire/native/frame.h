/* A frame: protobuf's bytes and what they mean. Plain C, nothing of Python. */

#ifndef MOESAIC_FRAME_H
#define MOESAIC_FRAME_H

#include "protobuf.h"

/* As protos/moesaic/v1/expert.proto says. Bytes are borrowed. */
struct frame {
    uint64_t frame_id, remaining_nanos;
    uint32_t layer, dtype, num_rows, checksum;
    struct bytes pair_rows, pair_experts, traceparent, pair_weights, rows;
    struct bytes requests; /* packed varints */
    int has_checksum;
};

/* Over all that is computed with; `rows` have to be where they say. */
uint32_t checksum_of_frame(const struct frame *);

/* Writes all of the frame but the bytes of its rows, which follow. */
void put_frame_head(struct sink *to, const struct frame *);

/* Reads a DispatchRequest. Whether it is a frame laid out in the usual way: each field once at most
 * and none that is not known here, arrays of whole words, and the checksum, if any, is right. */
int read_request(struct bytes message, struct frame *);

#endif
