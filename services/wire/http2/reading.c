/* From the socket to frames: where bytes are read to, and what each frame is handed to. */

#include "connection.h"

#include <errno.h>
#include <string.h>

#define READ_BYTES ((size_t)65536)

/* The buffer holds any control frame whole. */
int h2_prepare_reading(struct http2_connection *c) {
    return h2_reserve(&c->in, READ_BYTES + c->limits.max_header_bytes);
}

static void close_up(struct h2_buffer *in) {
    if (in->start) memmove(in->data, in->data + in->start, h2_held(in));
    in->end -= in->start;
    in->start = 0;
}

/* The rest of a long message goes straight to its place, and what lies behind it to the buffer. */
void h2_read(struct http2_connection *c) {
    struct iovec into[2];
    int used = 0;
    size_t direct = 0;
    char *at = NULL;
    close_up(&c->in);
    if (c->data_stream && !h2_held(&c->in))
        direct = h2_direct_room(c->data_stream, c->payload_left, &at);
    if (direct) into[used++] = (struct iovec){at, direct};
    const size_t room = c->in.room - c->in.end;
    into[used++] = (struct iovec){c->in.data + c->in.end, room};
    const ssize_t got = h2_channel_receive(c, into, used, direct + room);
    if (got <= 0) {
        c->is_socket_empty = true;
        if (!got)
            h2_lose(c, "the peer closed the connection");
        else if (errno != EAGAIN && errno != EINTR)
            h2_lose(c, "the socket cannot be read from");
        return;
    }
    const size_t taken = (size_t)got < direct ? (size_t)got : direct;
    c->in.end += (size_t)got - taken;
    if (!taken) return;
    struct h2_stream *stream = c->data_stream;
    c->payload_left -= taken;
    h2_consume(c, stream, taken);
    h2_took_direct(stream, taken);
}

static bool take_preface(struct http2_connection *c) {
    const size_t held = h2_held(&c->in);
    const size_t count = held < H2_PREFACE_BYTES ? held : H2_PREFACE_BYTES;
    if (count && memcmp(h2_first(&c->in), H2_PREFACE, count)) {
        h2_fail(c, HTTP2_PROTOCOL_ERROR, "the peer does not speak HTTP/2");
        return false;
    }
    if (count < H2_PREFACE_BYTES) return false;
    c->in.start += H2_PREFACE_BYTES;
    c->has_preface = true;
    return true;
}

/* Bytes stay where they are until the next read, so that events may look at them. */
static const char *take_in(struct http2_connection *c, size_t *left, size_t *count) {
    const char *data = c->in.data + c->in.start;
    *count = h2_held(&c->in) < *left ? h2_held(&c->in) : *left;
    c->in.start += *count;
    *left -= *count;
    return data;
}

static bool take_payload(struct http2_connection *c) {
    size_t count;
    const char *data = take_in(c, &c->payload_left, &count);
    if (!count) return false;
    struct h2_stream *stream = c->data_stream;
    if (stream) h2_take_data(stream, data, count);
    h2_consume(c, stream && !stream->is_gone ? stream : NULL, count);
    return true;
}

static bool take_padding(struct http2_connection *c) {
    size_t count;
    take_in(c, &c->padding_left, &count);
    return count > 0;
}

/* The payload follows as it comes; only the length of its padding has to be there. */
static bool begin_data(struct http2_connection *c, struct h2_frame frame) {
    const size_t is_padded = frame.flags & H2_PADDED && frame.count ? 1 : 0;
    if (h2_held(&c->in) < H2_FRAME_HEADER_BYTES + is_padded) return false;
    const unsigned char *at = (unsigned char *)c->in.data + c->in.start + H2_FRAME_HEADER_BYTES;
    const size_t padding = is_padded ? *at : 0;
    c->in.start += H2_FRAME_HEADER_BYTES + is_padded;
    if (frame.flags & H2_PADDED && padding + 1 > frame.count) {
        h2_fail(c, HTTP2_PROTOCOL_ERROR, "a frame has more padding than bytes");
        return false;
    }
    c->payload_left = frame.count - padding - is_padded;
    c->padding_left = padding;
    c->data_ends_stream = frame.flags & H2_END_STREAM;
    h2_begin_data(c, frame, padding + is_padded);
    return !c->is_over;
}

static bool is_out_of_order(struct http2_connection *c, struct h2_frame frame) {
    if (!c->has_settings && (frame.type != H2_SETTINGS || frame.flags & H2_ACK))
        h2_fail(c, HTTP2_PROTOCOL_ERROR, "the first frame is not SETTINGS");
    else if (c->block_stream && (frame.type != H2_CONTINUATION || frame.stream != c->block_stream))
        h2_fail(c, HTTP2_PROTOCOL_ERROR, "a header block was broken off");
    c->has_settings = true;
    return c->is_over;
}

static bool take_frame(struct http2_connection *c) {
    if (h2_held(&c->in) < H2_FRAME_HEADER_BYTES) return false;
    const struct h2_frame frame = h2_get_frame(h2_first(&c->in));
    if (is_out_of_order(c, frame)) return false;
    if (frame.type == H2_DATA) return begin_data(c, frame);
    if (frame.type > H2_CONTINUATION || frame.type == H2_PRIORITY) { /* passed over */
        h2_count_control(c);
        c->in.start += H2_FRAME_HEADER_BYTES;
        c->padding_left = frame.count;
        if (frame.type == H2_PRIORITY) h2_check_priority(c, frame);
        return !c->is_over;
    }
    if (h2_is_too_long(c, frame)) {
        h2_fail(c, HTTP2_ENHANCE_YOUR_CALM, "a frame that is not DATA is too long");
        return false;
    }
    if (h2_held(&c->in) < H2_FRAME_HEADER_BYTES + frame.count) return false;
    const char *payload = c->in.data + c->in.start + H2_FRAME_HEADER_BYTES;
    c->in.start += H2_FRAME_HEADER_BYTES + frame.count;
    h2_take_control(c, frame, payload);
    return !c->is_over;
}

static bool end_data(struct http2_connection *c) {
    struct h2_stream *stream = c->data_stream;
    c->data_ends_stream = false;
    c->data_stream = NULL;
    if (stream) h2_remote_ends(stream);
    return true;
}

static bool step(struct http2_connection *c) {
    if (!c->has_preface) return take_preface(c);
    if (c->payload_left) return take_payload(c);
    if (c->padding_left) return take_padding(c);
    if (c->data_ends_stream) return end_data(c);
    return take_frame(c);
}

void h2_parse(struct http2_connection *c) {
    while (!c->is_over && step(c)) {
        if (!c->block_stream) c->frame_nanos = 0;
        if (c->depth == 1) h2_free_gone(c);
    }
    if (!c->frame_nanos && (h2_held(&c->in) || c->block_stream)) c->frame_nanos = c->read_nanos;
}
