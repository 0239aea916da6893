/* What peers send to a native plane: sessions of HTTP/2 that are mostly valid, with frames of which
 * some break the contract, and some are none. */

#ifndef MOESAIC_TESTS_HOSTILE_H
#define MOESAIC_TESTS_HOSTILE_H

#include "frame.h"
#include "services/wire/http2/frames.h"
#include "tests/wire/http2/blocks.h"
#include "tests/wire/http2/draw.h"

enum { NUM_LAYERS = 3, NUM_EXPERTS = 4, NUM_SLOTS = 6, HIDDEN = 8, INTERMEDIATE = 8 };
enum { ROW_BYTES = HIDDEN * sizeof(float), MAX_FRAME_BYTES = 2048 };

static void put_word(char *at, uint32_t word) { memcpy(at, &word, sizeof word); }

/* A gRPC message with a frame, which mostly is a usual one; its bytes. */
static size_t put_request(char *at, int is_usual) {
    char rows[8 * ROW_BYTES], pair_rows[64], pair_experts[64], body[4096];
    const uint32_t num_rows = 1 + draw(8), num_pairs = 1 + draw(16);
    const int is_odd = !is_usual && draw(3) == 0;
    for (uint32_t i = 0; i < num_pairs; i++) {
        put_word(pair_rows + 4 * i, draw(num_rows + (is_odd && draw(4) == 0)));
        put_word(pair_experts + 4 * i, draw(NUM_EXPERTS + (is_odd && draw(4) == 0)));
    }
    fill(rows, sizeof rows, draw(1000));
    struct frame frame = {
        .frame_id = draw(1000),
        .remaining_nanos = draw(20) ? UINT64_MAX : draw(1000),
        .layer = is_usual ? 0 : draw(NUM_LAYERS + is_odd),
        .dtype = is_odd ? draw(4) : 1,
        .num_rows = num_rows,
        .pair_rows = {pair_rows, 4 * num_pairs - (is_odd && draw(3) == 0)},
        .pair_experts = {pair_experts, 4 * num_pairs},
        .rows = {rows, num_rows * ROW_BYTES - (is_odd && draw(3) == 0)},
        .requests = {"\x01\x02", draw(3) ? 0 : draw(3)},
        .traceparent = {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\xff",
                        draw(2) ? 0 : 55 + (is_odd && draw(2))},
        .has_checksum = (int)draw(2),
    };
    frame.checksum = checksum_of_frame(&frame) + (is_odd && draw(4) == 0);
    struct sink inner = {.at = body}, to = {.at = at + 5};
    put_frame_head(&inner, &frame);
    put(&inner, rows, frame.rows.count);
    put_header(&to, BODY, inner.count);
    put(&to, body, inner.count);
    if (is_odd && to.count) at[5 + draw((uint32_t)to.count)] ^= (char)(1 << draw(8));
    *at = 0;
    h2_put_word(at + 1, (uint32_t)to.count);
    return 5 + to.count;
}

static size_t put_frame(char *at, uint32_t count, enum h2_type type, int flags, uint32_t stream) {
    h2_put_frame(at, (struct h2_frame){count, type, (uint8_t)flags, stream});
    return H2_FRAME_HEADER_BYTES + count;
}

static size_t put_control(char *at) {
    char *const payload = at + H2_FRAME_HEADER_BYTES;
    const uint32_t stream = 2 * draw(5) + 1;
    memset(payload, 0, 8);
    switch (draw(5)) {
    case 0: return put_frame(at, 8, H2_PING, 0, 0);
    case 1: payload[3] = 8; return put_frame(at, 4, H2_RST_STREAM, 0, stream);
    case 2: return put_frame(at, 0, H2_SETTINGS, 0, 0);
    case 3: return put_frame(at, 0, H2_DATA, H2_END_STREAM, stream);
    default: h2_put_word(payload, 1 + draw(100000));
    }
    return put_frame(at, 4, H2_WINDOW_UPDATE, 0, draw(2) ? stream : 0);
}

/* Changes a few bytes, or takes some out. */
static size_t alter(char *bytes, size_t count) {
    for (uint32_t times = draw(4); times; times--) {
        const size_t at = draw((uint32_t)count), length = draw((uint32_t)(count - at)) % 40;
        if (draw(3)) {
            bytes[at] = (char)(bytes[at] ^ 1 << draw(8));
        } else {
            memmove(bytes + at, bytes + at + length, count - at - length);
            count -= length;
        }
    }
    return count;
}

static size_t put_cancel(char *at) {
    memcpy(at, "\0\0\0\0\x05\x12\x03\x0a\x01\x01", 10);
    return 10;
}

static size_t put_opening(char *at, uint32_t stream) {
    const struct block block = request_block("/moesaic.v1.ExpertService/Dispatch");
    memcpy(at + H2_FRAME_HEADER_BYTES, block.data, block.count);
    return put_frame(at, (uint32_t)block.count, H2_HEADERS, H2_END_HEADERS, stream);
}

static size_t put_messages_of(char *at, uint32_t stream) {
    size_t count = 0;
    char *payload = at + H2_FRAME_HEADER_BYTES;
    for (uint32_t i = 1 + draw(4); i; i--)
        count += draw(40) ? put_request(payload + count, 0) : put_cancel(payload + count);
    const int ends = draw(12) == 0;
    return put_frame(at, (uint32_t)count, H2_DATA, ends, stream);
}

static size_t put_start(char *at, uint32_t window) {
    memcpy(at, H2_PREFACE, H2_PREFACE_BYTES);
    char *setting = at + H2_PREFACE_BYTES + H2_FRAME_HEADER_BYTES;
    setting[0] = 0;
    setting[1] = 4; /* the streams' window */
    h2_put_word(setting + 2, window);
    return H2_PREFACE_BYTES + put_frame(at + H2_PREFACE_BYTES, 6, H2_SETTINGS, 0, 0);
}

static size_t put_session(char *bytes, size_t *num_opening) {
    size_t count = put_start(bytes, draw(3) ? 1 << 20 : draw(200));
    const uint32_t num_streams = 1 + draw(4);
    for (uint32_t i = 0; i < num_streams; i++) count += put_opening(bytes + count, 2 * i + 1);
    *num_opening = count;
    for (uint32_t frames = draw(60); frames; frames--) {
        const uint32_t stream = 2 * draw(num_streams) + 1;
        if (draw(25))
            count += put_messages_of(bytes + count, stream);
        else
            count += put_control(bytes + count);
    }
    return draw(3) ? count : alter(bytes, count);
}

#endif
