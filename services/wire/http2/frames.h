/* The header of a frame, RFC 9113, section 4.1, and its numbers. */

#ifndef MOESAIC_HTTP2_FRAMES_H
#define MOESAIC_HTTP2_FRAMES_H

#include <stdint.h>

enum h2_type {
    H2_DATA,
    H2_HEADERS,
    H2_PRIORITY,
    H2_RST_STREAM,
    H2_SETTINGS,
    H2_PUSH_PROMISE,
    H2_PING,
    H2_GOAWAY,
    H2_WINDOW_UPDATE,
    H2_CONTINUATION,
};

enum h2_flag {
    H2_END_STREAM = 1,
    H2_ACK = 1,
    H2_END_HEADERS = 4,
    H2_PADDED = 8,
    H2_PRIORITISED = 32,
};

enum h2_setting {
    H2_HEADER_TABLE_SIZE = 1,
    H2_ENABLE_PUSH,
    H2_MAX_CONCURRENT_STREAMS,
    H2_INITIAL_WINDOW_SIZE,
    H2_MAX_FRAME_SIZE,
    H2_MAX_HEADER_LIST_SIZE,
};

#define H2_PREFACE "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#define H2_PREFACE_BYTES (sizeof H2_PREFACE - 1)
#define H2_FRAME_HEADER_BYTES 9
#define H2_SETTING_BYTES 6
/* Of DATA and of connections before either side has said anything else. */
#define H2_DEFAULT_WINDOW 65535
#define H2_DEFAULT_FRAME_BYTES 16384
#define H2_MAX_WINDOW 0x7fffffff
#define H2_MAX_FRAME_BYTES ((1 << 24) - 1)
/* Of gRPC: a flag that says whether the message is compressed, and its length. */
#define H2_MESSAGE_PREFIX_BYTES 5

struct h2_frame {
    uint32_t count; /* bytes of payload */
    uint8_t type, flags;
    uint32_t stream;
};

static inline uint32_t h2_get_word(const char *data) {
    const unsigned char *at = (const unsigned char *)data;
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static inline void h2_put_word(char *at, uint32_t value) {
    for (int i = 0; i < 4; i++) at[i] = (char)(value >> (24 - 8 * i));
}

static inline struct h2_frame h2_get_frame(const char *at) {
    return (struct h2_frame){
        .count = h2_get_word(at) >> 8,
        .type = (uint8_t)at[3],
        .flags = (uint8_t)at[4],
        .stream = h2_get_word(at + 5) & H2_MAX_WINDOW,
    };
}

static inline void h2_put_frame(char *at, struct h2_frame frame) {
    h2_put_word(at, frame.count << 8 | frame.type);
    at[4] = (char)frame.flags;
    h2_put_word(at + 5, frame.stream);
}

#endif
