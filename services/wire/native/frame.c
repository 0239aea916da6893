/* Frames as bytes, written and read. */

#include "frame.h"

#include "checksum.h"

/* Of protos/moesaic/v1/expert.proto. */
enum {
    FRAME_ID = 1,
    LAYER = 2,
    DTYPE = 3,
    NUM_ROWS = 4,
    PAIR_ROWS = 5,
    PAIR_EXPERTS = 6,
    REMAINING_NANOS = 7,
    TRACEPARENT = 8,
    REQUESTS = 9,
    PAIR_WEIGHTS = 10,
    CHECKSUM = 11,
    ROWS = 15,
};

uint32_t checksum_of_frame(const struct frame *frame) {
    char numbers[sizeof frame->frame_id + 3 * WORD_BYTES];
    struct sink to = {.at = numbers};
    put_fixed(&to, frame->frame_id, sizeof frame->frame_id);
    put_fixed(&to, frame->layer, WORD_BYTES);
    put_fixed(&to, frame->dtype, WORD_BYTES);
    put_fixed(&to, frame->num_rows, WORD_BYTES);
    uint32_t checksum = checksum_of(0, numbers, sizeof numbers);
    const struct bytes arrays[] = {frame->pair_rows, frame->pair_experts, frame->pair_weights,
                                   frame->rows};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
        checksum = checksum_of(checksum, arrays[i].data, arrays[i].count);
    return checksum;
}

void put_frame_head(struct sink *to, const struct frame *frame) {
    put_number(to, FRAME_ID, frame->frame_id);
    put_number(to, LAYER, frame->layer);
    put_number(to, DTYPE, frame->dtype);
    put_number(to, NUM_ROWS, frame->num_rows);
    put_bytes(to, PAIR_ROWS, frame->pair_rows);
    put_bytes(to, PAIR_EXPERTS, frame->pair_experts);
    put_number(to, REMAINING_NANOS, frame->remaining_nanos);
    put_bytes(to, TRACEPARENT, frame->traceparent);
    put_bytes(to, REQUESTS, frame->requests);
    put_bytes(to, PAIR_WEIGHTS, frame->pair_weights);
    if (frame->has_checksum) put_checksum(to, CHECKSUM, frame->checksum);
    if (frame->rows.count) put_header(to, ROWS, frame->rows.count);
}

/* Whether the bytes are those of a frame with each field once at most, and none that is not known
 * here. */
static int read_frame(struct reader from, struct frame *frame) {
    uint32_t seen = 0;
    for (int is_read = 1; from.at < from.end;) {
        switch (read_new_tag(&from, &seen)) {
        case TAG(FRAME_ID, VARINT): is_read = read_varint(&from, &frame->frame_id); break;
        case TAG(LAYER, VARINT): is_read = read_word(&from, UINT32_MAX, &frame->layer); break;
        case TAG(DTYPE, VARINT): is_read = read_word(&from, INT32_MAX, &frame->dtype); break;
        case TAG(NUM_ROWS, VARINT): is_read = read_word(&from, UINT32_MAX, &frame->num_rows); break;
        case TAG(PAIR_ROWS, LENGTH_DELIMITED):
            is_read = read_bytes(&from, &frame->pair_rows);
            break;
        case TAG(PAIR_EXPERTS, LENGTH_DELIMITED):
            is_read = read_bytes(&from, &frame->pair_experts);
            break;
        case TAG(REMAINING_NANOS, VARINT):
            is_read = read_varint(&from, &frame->remaining_nanos);
            break;
        case TAG(TRACEPARENT, LENGTH_DELIMITED):
            is_read = read_bytes(&from, &frame->traceparent);
            break;
        case TAG(REQUESTS, LENGTH_DELIMITED): is_read = read_bytes(&from, &frame->requests); break;
        case TAG(PAIR_WEIGHTS, LENGTH_DELIMITED):
            is_read = read_bytes(&from, &frame->pair_weights);
            break;
        case TAG(CHECKSUM, FIXED32):
            is_read = frame->has_checksum = read_fixed32(&from, &frame->checksum);
            break;
        case TAG(ROWS, LENGTH_DELIMITED): is_read = read_bytes(&from, &frame->rows); break;
        default: return 0;
        }
        if (!is_read) return 0;
    }
    return 1;
}

/* Whether what was read is whole: arrays of words, and the checksum that it says. */
static int is_right(const struct frame *frame) {
    if ((frame->pair_rows.count | frame->pair_experts.count | frame->pair_weights.count) %
        WORD_BYTES)
        return 0;
    return !frame->has_checksum || frame->checksum == checksum_of_frame(frame);
}

int read_request(struct bytes message, struct frame *frame) {
    struct bytes body;
    struct reader from = reader_of(message);
    *frame = (struct frame){0};
    return message.count && *from.at++ == TAG(BODY, LENGTH_DELIMITED) && read_bytes(&from, &body) &&
           from.at == from.end && read_frame(reader_of(body), frame) && is_right(frame);
}
