/* Frames that carry no message: SETTINGS, PING, GOAWAY, RST_STREAM, WINDOW_UPDATE, PRIORITY. */

#include "connection.h"

/* How many streams' windows the connection's is. */
#define WINDOWS 4
/* What fits into a stream's window beside its longest message. */
#define WINDOW_MARGIN_BYTES 65536

void h2_put_control(struct http2_connection *c, enum h2_type type, uint8_t flags, uint32_t stream,
                    const char *payload, size_t count) {
    char header[H2_FRAME_HEADER_BYTES];
    h2_put_frame(header, (struct h2_frame){(uint32_t)count, (uint8_t)type, flags, stream});
    if (h2_held(&c->out) + count > c->limits.max_unsent_bytes)
        h2_lose(c, "the peer does not read what it is answered");
    else if (h2_append(&c->out, header, sizeof header) < 0 ||
             h2_append(&c->out, payload, count) < 0)
        h2_out_of_memory(c);
}

void h2_put_word_frame(struct http2_connection *c, enum h2_type type, uint32_t stream,
                       uint32_t value) {
    char payload[4];
    h2_put_word(payload, value);
    h2_put_control(c, type, 0, stream, payload, sizeof payload);
}

void h2_put_goaway(struct http2_connection *c, enum http2_error code) {
    char payload[8];
    h2_put_word(payload, c->is_server ? c->last_id : 0);
    h2_put_word(payload + 4, code);
    h2_put_control(c, H2_GOAWAY, 0, 0, payload, sizeof payload);
}

static size_t put_setting(char *at, enum h2_setting id, uint32_t value) {
    at[0] = 0;
    at[1] = (char)id;
    h2_put_word(at + 2, value);
    return H2_SETTING_BYTES;
}

static uint32_t at_most_window(uint64_t bytes) {
    return bytes < H2_MAX_WINDOW ? (uint32_t)bytes : H2_MAX_WINDOW;
}

/* No header table, so that no block depends on one before it. */
void h2_put_first(struct http2_connection *c) {
    char settings[5 * H2_SETTING_BYTES];
    size_t used = 0;
    c->our_stream_window =
        at_most_window((uint64_t)c->limits.max_message_bytes + WINDOW_MARGIN_BYTES);
    c->our_window = at_most_window(WINDOWS * (uint64_t)c->our_stream_window);
    c->receive_window = c->our_window;
    used += put_setting(settings + used, H2_HEADER_TABLE_SIZE, 0);
    used += put_setting(settings + used, H2_INITIAL_WINDOW_SIZE, c->our_stream_window);
    used += put_setting(settings + used, H2_MAX_FRAME_SIZE, H2_MAX_FRAME_BYTES);
    used += put_setting(settings + used, H2_MAX_HEADER_LIST_SIZE, c->limits.max_header_list_bytes);
    if (c->is_server)
        used += put_setting(settings + used, H2_MAX_CONCURRENT_STREAMS, c->limits.max_streams);
    else
        used += put_setting(settings + used, H2_ENABLE_PUSH, 0);
    if (!c->is_server && h2_append(&c->out, H2_PREFACE, H2_PREFACE_BYTES) < 0) h2_out_of_memory(c);
    h2_put_control(c, H2_SETTINGS, 0, 0, settings, used);
    h2_put_word_frame(c, H2_WINDOW_UPDATE, 0, c->our_window - H2_DEFAULT_WINDOW);
}

static void take_setting(struct http2_connection *c, unsigned id, uint32_t value,
                         uint32_t *window) {
    switch (id) {
    case H2_ENABLE_PUSH:
        if (value > (c->is_server ? 1 : 0))
            h2_fail(c, HTTP2_PROTOCOL_ERROR, "a setting has a wrong value");
        break;
    case H2_MAX_CONCURRENT_STREAMS: c->peer_max_streams = value; break;
    case H2_INITIAL_WINDOW_SIZE:
        if (value > H2_MAX_WINDOW)
            h2_fail(c, HTTP2_FLOW_CONTROL_ERROR, "a setting has a wrong value");
        *window = value;
        break;
    case H2_MAX_FRAME_SIZE:
        if (value < H2_DEFAULT_FRAME_BYTES || value > H2_MAX_FRAME_BYTES)
            h2_fail(c, HTTP2_PROTOCOL_ERROR, "a setting has a wrong value");
        c->peer_frame_bytes = value;
        break;
    default: /* of header tables, and of whatever may come */ break;
    }
}

static void take_settings(struct http2_connection *c, struct h2_frame frame, const char *at) {
    h2_count_control(c);
    if (frame.flags & H2_ACK) return;
    uint32_t window = c->peer_stream_window;
    for (const char *end = at + frame.count; at < end && !c->is_over; at += H2_SETTING_BYTES)
        take_setting(c, (unsigned)h2_get_word(at) >> 16, h2_get_word(at + 2), &window);
    if (c->is_over) return;
    /* Once, however often it was said: each change goes through all streams. */
    if (window != c->peer_stream_window) h2_change_peer_window(c, window);
    if (!c->is_over) h2_put_control(c, H2_SETTINGS, H2_ACK, 0, NULL, 0);
}

static void take_ping(struct http2_connection *c, struct h2_frame frame, const char *payload) {
    h2_count_control(c);
    if (!(frame.flags & H2_ACK) && !c->is_over)
        h2_put_control(c, H2_PING, H2_ACK, 0, payload, frame.count);
}

/* Streams above the last that the peer takes were never looked at; those below go on. */
static void take_goaway(struct http2_connection *c, const char *payload) {
    const uint32_t last = h2_get_word(payload) & H2_MAX_WINDOW;
    h2_count_control(c);
    if (c->is_server) return;
    c->is_going_away = true;
    while (c->num_streams && c->streams[c->num_streams - 1]->shown.id > last)
        h2_reset(c->streams[c->num_streams - 1], HTTP2_REFUSED_STREAM);
}

/* A server that has said everything resets by NO_ERROR: what it said still counts. */
static void take_reset(struct http2_connection *c, struct h2_frame frame, const char *payload) {
    const uint32_t code = h2_get_word(payload);
    struct h2_stream *stream = h2_find(c, frame.stream);
    h2_count_control(c);
    if (!stream) {
        if (h2_is_idle(c, frame.stream))
            h2_fail(c, HTTP2_PROTOCOL_ERROR, "a stream was reset that was never opened");
        return;
    }
    if (c->is_server || code != HTTP2_NO_ERROR || !stream->remote_ended || stream->end_told) {
        h2_reset(stream, code);
        return;
    }
    h2_drop_pending(stream);
    stream->ending = H2_FINISHES;
    stream->local_ended = true;
}

/* Of frames with a length that is always the same, and of all where they may stand. */
static bool is_well_formed(struct http2_connection *c, struct h2_frame frame) {
    const bool is_of_stream = frame.type == H2_HEADERS || frame.type == H2_RST_STREAM ||
                              frame.type == H2_PRIORITY || frame.type == H2_CONTINUATION;
    const bool is_of_either = frame.type == H2_WINDOW_UPDATE || frame.type > H2_CONTINUATION;
    bool is_right_length = true;
    if (frame.type == H2_SETTINGS)
        is_right_length = frame.flags & H2_ACK ? !frame.count : !(frame.count % H2_SETTING_BYTES);
    if (frame.type == H2_PING) is_right_length = frame.count == 8;
    if (frame.type == H2_GOAWAY) is_right_length = frame.count >= 8;
    if (frame.type == H2_RST_STREAM || frame.type == H2_WINDOW_UPDATE)
        is_right_length = frame.count == 4;
    if (!is_right_length)
        h2_fail(c, HTTP2_FRAME_SIZE_ERROR, "a frame has a wrong length");
    else if (!is_of_either && is_of_stream != (frame.stream != 0))
        h2_fail(c, HTTP2_PROTOCOL_ERROR, "a frame is on a stream that it cannot be on");
    return !c->is_over;
}

void h2_check_priority(struct http2_connection *c, struct h2_frame frame) {
    if (!is_well_formed(c, frame) || frame.count == 5) return;
    struct h2_stream *stream = h2_find(c, frame.stream);
    if (stream) h2_stream_error(stream, HTTP2_FRAME_SIZE_ERROR);
}

void h2_take_control(struct http2_connection *c, struct h2_frame frame, const char *payload) {
    if (frame.type == H2_PUSH_PROMISE) {
        h2_fail(c, HTTP2_PROTOCOL_ERROR, "the peer pushes what nobody asked for");
        return;
    }
    if (!is_well_formed(c, frame)) return;
    switch (frame.type) {
    case H2_HEADERS: h2_take_headers(c, frame, payload); break;
    case H2_CONTINUATION: h2_take_continuation(c, frame, payload); break;
    case H2_SETTINGS: take_settings(c, frame, payload); break;
    case H2_PING: take_ping(c, frame, payload); break;
    case H2_GOAWAY: take_goaway(c, payload); break;
    case H2_RST_STREAM: take_reset(c, frame, payload); break;
    case H2_WINDOW_UPDATE: h2_take_window_update(c, frame, payload); break;
    }
}
