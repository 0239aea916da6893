/* Replies as bytes, written and read. */

#include "reply.h"

#include "checksum.h"

/* Of protos/moesaic/v1/expert.proto: FrameReply's fields. */
enum { FRAME_ID = 1, TIMINGS = 4, BATCH_FRAMES = 5, CHECKSUM = 6, ROWS = 15 };

#define FIRST_TIMING 1

uint32_t checksum_of_reply(const struct reply *reply) {
    char numbers[sizeof reply->frame_id];
    struct sink to = {.at = numbers};
    put_fixed(&to, reply->frame_id, sizeof reply->frame_id);
    return checksum_of(checksum_of(0, numbers, sizeof numbers), reply->rows.data,
                       reply->rows.count);
}

static void put_timings(struct sink *to, const struct reply *reply) {
    for (int i = 0; i < NUM_TIMINGS; i++) put_number(to, FIRST_TIMING + i, reply->timings[i]);
}

void put_reply_head(struct sink *to, const struct reply *reply) {
    put_number(to, FRAME_ID, reply->frame_id);
    if (reply->has_timings) {
        struct sink counted = {0};
        put_timings(&counted, reply);
        put_header(to, TIMINGS, counted.count);
        put_timings(to, reply);
    }
    put_number(to, BATCH_FRAMES, reply->batch_frames);
    if (reply->has_checksum) put_checksum(to, CHECKSUM, reply->checksum);
    if (reply->rows.count) put_header(to, ROWS, reply->rows.count);
}

/* Whether the bytes are timings with each field once at most, and none that is not known here. */
static int read_timings(struct reader from, struct reply *reply) {
    uint32_t seen = 0;
    while (from.at < from.end) {
        const int tag = read_new_tag(&from, &seen), timing = (tag >> 3) - FIRST_TIMING;
        if (timing < 0 || timing >= NUM_TIMINGS || tag != TAG(FIRST_TIMING + timing, VARINT))
            return 0;
        if (!read_varint(&from, reply->timings + timing)) return 0;
    }
    return 1;
}

/* The same of a reply, and its checksum, where it has one, is right. */
static int read_reply(struct reader from, struct reply *reply) {
    uint32_t seen = 0;
    struct bytes timings = {0};
    for (int is_read = 1; from.at < from.end;) {
        switch (read_new_tag(&from, &seen)) {
        case TAG(FRAME_ID, VARINT): is_read = read_varint(&from, &reply->frame_id); break;
        case TAG(TIMINGS, LENGTH_DELIMITED): is_read = read_bytes(&from, &timings); break;
        case TAG(BATCH_FRAMES, VARINT):
            is_read = read_word(&from, UINT32_MAX, &reply->batch_frames);
            break;
        case TAG(CHECKSUM, FIXED32):
            is_read = reply->has_checksum = read_fixed32(&from, &reply->checksum);
            break;
        case TAG(ROWS, LENGTH_DELIMITED): is_read = read_bytes(&from, &reply->rows); break;
        default: return 0;
        }
        if (!is_read) return 0;
    }
    if (!read_timings(reader_of(timings), reply)) return 0;
    return !reply->has_checksum || reply->checksum == checksum_of_reply(reply);
}

int read_response(struct bytes message, struct reply *reply, int *has_reply) {
    struct bytes body = {0};
    struct reader from = reader_of(message);
    uint32_t seen = 0;
    *reply = (struct reply){0};
    for (int is_read = 1; from.at < from.end;) {
        switch (read_new_tag(&from, &seen)) {
        case TAG(BODY, LENGTH_DELIMITED): is_read = read_bytes(&from, &body); break;
        case TAG(GRANTED_PAIRS, VARINT): is_read = read_varint(&from, &reply->granted_pairs); break;
        default: is_read = 0;
        }
        if (!is_read) return 0;
    }
    *has_reply = body.data != NULL;
    return !*has_reply || read_reply(reader_of(body), reply);
}
