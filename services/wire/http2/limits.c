/* Bounds on what a peer may cost. */

#include "connection.h"

#define NANOS_A_SECOND 1000000000u

const struct http2_limits http2_limits_default = {
    .max_streams = 100,
    .max_message_bytes = 16 << 20,
    .max_header_bytes = 16 << 10,
    .max_header_list_bytes = 16 << 10,
    .max_unsent_bytes = 64 << 20,
    .max_held_bytes = 64 << 20,
    .max_control_frames = 2000,
};

static void count(struct http2_connection *c, uint64_t tenths) {
    if (c->read_nanos - c->second_began_nanos >= NANOS_A_SECOND) {
        c->second_began_nanos = c->read_nanos;
        c->control_cost = 0;
    }
    c->control_cost += tenths;
    if (c->control_cost > (uint64_t)c->limits.max_control_frames * 10)
        h2_fail(c, HTTP2_ENHANCE_YOUR_CALM, "the peer sent too many control frames in a second");
}

void h2_count_control(struct http2_connection *c) { count(c, 10); }
void h2_count_tenth(struct http2_connection *c) { count(c, 1); }

bool h2_is_too_long(const struct http2_connection *c, struct h2_frame frame) {
    switch (frame.type) {
    case H2_HEADERS: /* with padding and a priority */
        return frame.count > c->limits.max_header_bytes + 256 + 5;
    case H2_CONTINUATION: return frame.count > c->limits.max_header_bytes;
    default: return frame.count > H2_DEFAULT_FRAME_BYTES;
    }
}
