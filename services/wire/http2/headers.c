/* Header blocks: HEADERS and CONTINUATION, in and out. */

#include "connection.h"

/* A client's trailers say nothing in gRPC, so they are not kept until the messages before them are
 * handed out. */
static void end_request(struct h2_stream *stream, bool ends) {
    if (stream->remote_ended)
        h2_stream_error(stream, HTTP2_STREAM_CLOSED);
    else if (!ends)
        h2_stream_error(stream, HTTP2_PROTOCOL_ERROR);
    else
        h2_remote_ends(stream);
}

/* What a server says on a stream: a response, or trailers where they end the stream. */
static void take_response(struct h2_stream *stream, bool ends, const char *block, size_t count) {
    struct http2_connection *c = h2_connection(stream);
    if (stream->remote_ended) {
        h2_stream_error(stream, HTTP2_STREAM_CLOSED);
        return;
    }
    if (!ends && stream->has_messages) {
        h2_stream_error(stream, HTTP2_PROTOCOL_ERROR);
        return;
    }
    if (!ends && stream->has_headers) h2_count_control(c);
    stream->has_headers = true;
    if (!ends) {
        c->events->headers(&stream->shown, block, count, 0);
        return;
    }
    if (count > h2_room_to_hold(c)) {
        h2_stream_error(stream, HTTP2_ENHANCE_YOUR_CALM);
        return;
    }
    if (h2_append(&stream->kept_trailers, block, count) < 0) {
        h2_out_of_memory(c);
        return;
    }
    h2_count_held(stream);
    stream->has_kept_trailers = true;
    h2_remote_ends(stream);
}

static bool may_open(const struct http2_connection *c) {
    return !c->is_going_away && c->num_streams < c->limits.max_streams;
}

static void open_for_peer(struct http2_connection *c, uint32_t id, bool ends, const char *block,
                          size_t count) {
    if (!may_open(c)) {
        c->last_id = id;
        h2_count_control(c);
        h2_put_word_frame(c, H2_RST_STREAM, id, HTTP2_REFUSED_STREAM);
        return;
    }
    struct h2_stream *stream = h2_add(c, id);
    if (!stream) {
        h2_out_of_memory(c);
        return;
    }
    stream->has_headers = true;
    stream->remote_ended = ends;
    stream->is_handing_out = true;
    c->events->headers(&stream->shown, block, count, ends);
    stream->is_handing_out = false;
    if (ends && !stream->is_gone) h2_remote_ends(stream);
}

/* Whether a stream's owner is told of a block. A server's trailers are, behind messages that came
 * before them and so perhaps out of the wire's order: it knows that there is no table before it
 * says anything. */
static bool is_heard(const struct http2_connection *c, const struct h2_stream *stream,
                     uint32_t id) {
    if (c->is_server) return !stream && id & 1 && h2_is_idle(c, id) && may_open(c);
    return stream && !stream->remote_ended;
}

static void take_block(struct http2_connection *c, uint32_t id, bool ends, const char *block,
                       size_t count) {
    struct h2_stream *stream = h2_find(c, id);
    if (!is_heard(c, stream, id) && c->events->passed_over) c->events->passed_over(c, block, count);
    if (stream && c->is_server)
        end_request(stream, ends);
    else if (stream)
        take_response(stream, ends, block, count);
    else if (!h2_is_idle(c, id) && (ends || !c->is_server))
        h2_count_control(c); /* the peer may not know yet that it is closed */
    else if (!h2_is_idle(c, id))
        h2_fail(c, HTTP2_PROTOCOL_ERROR, "a stream was opened below one that was opened before");
    else if (c->is_server && id & 1)
        open_for_peer(c, id, ends, block, count);
    else
        h2_fail(c, HTTP2_PROTOCOL_ERROR, "headers came on a stream that the peer may not open");
}

static bool has_room(struct http2_connection *c, size_t count) {
    if (h2_held(&c->block) + count <= c->limits.max_header_bytes) return true;
    h2_fail(c, HTTP2_ENHANCE_YOUR_CALM, "a header block is too long");
    return false;
}

void h2_take_headers(struct http2_connection *c, struct h2_frame frame, const char *at) {
    const size_t before =
        (frame.flags & H2_PADDED ? 1 : 0) + (frame.flags & H2_PRIORITISED ? 5 : 0);
    if (frame.count < before) {
        h2_fail(c, HTTP2_FRAME_SIZE_ERROR, "a frame has a wrong length");
        return;
    }
    const size_t padding = frame.flags & H2_PADDED ? (unsigned char)*at : 0;
    if (frame.count - before < padding) {
        h2_fail(c, HTTP2_PROTOCOL_ERROR, "a frame has more padding than bytes");
        return;
    }
    const size_t count = frame.count - before - padding;
    const bool ends = frame.flags & H2_END_STREAM;
    if (!has_room(c, count)) return;
    if (frame.flags & H2_END_HEADERS) {
        take_block(c, frame.stream, ends, at + before, count);
        return;
    }
    c->block_stream = frame.stream;
    c->block_ends_stream = ends;
    if (h2_append(&c->block, at + before, count) < 0) h2_out_of_memory(c);
}

void h2_take_continuation(struct http2_connection *c, struct h2_frame frame, const char *at) {
    h2_count_control(c);
    if (!c->block_stream) {
        h2_fail(c, HTTP2_PROTOCOL_ERROR, "CONTINUATION came without HEADERS");
        return;
    }
    if (!has_room(c, frame.count)) return;
    if (h2_append(&c->block, at, frame.count) < 0) {
        h2_out_of_memory(c);
        return;
    }
    if (!(frame.flags & H2_END_HEADERS)) return;
    c->block_stream = 0;
    take_block(c, frame.stream, c->block_ends_stream, h2_first(&c->block), h2_held(&c->block));
    h2_take(&c->block, h2_held(&c->block));
}

void h2_put_headers(struct http2_connection *c, uint32_t id, const char *block, size_t count,
                    bool ends_stream) {
    enum h2_type type = H2_HEADERS;
    uint8_t flags = ends_stream ? H2_END_STREAM : 0;
    do {
        const size_t now = count < c->peer_frame_bytes ? count : c->peer_frame_bytes;
        if (now == count) flags |= H2_END_HEADERS;
        h2_put_control(c, type, flags, id, block, now);
        if (now) block += now;
        count -= now;
        type = H2_CONTINUATION;
        flags = 0;
    } while (count);
}

struct http2_stream *http2_open(struct http2_connection *c, const char *block, size_t count,
                                void *owner) {
    if (c->is_server || c->is_over || c->is_going_away) return NULL;
    if (c->num_streams >= c->peer_max_streams || c->last_id >= H2_MAX_WINDOW - 1) return NULL;
    struct h2_stream *stream = h2_add(c, c->last_id ? c->last_id + 2 : 1);
    if (!stream) return NULL;
    stream->shown.owner = owner;
    h2_put_headers(c, stream->shown.id, block, count, false);
    if (h2_settle(c) == 0) return &stream->shown;
    h2_forget(stream);
    return NULL;
}

static int send_trailers(struct h2_stream *stream, const char *block, size_t count) {
    struct http2_connection *c = h2_connection(stream);
    if (h2_append(&stream->trailers, block, count) < 0) return h2_out_of_memory(c);
    c->num_pending_bytes += count;
    stream->ending = H2_HAS_TRAILERS;
    h2_end_sending(stream);
    return h2_settle(c);
}

int http2_send_headers(struct http2_stream *shown, const char *block, size_t count,
                       int ends_stream) {
    struct h2_stream *stream = h2_of(shown);
    struct http2_connection *c = shown->connection;
    if (ends_stream) stream->is_silent = c->is_server; /* also where nothing can be sent */
    if (stream->is_silent) h2_drop_held(stream);
    if (stream->is_gone || stream->ending || c->is_over) return -1;
    if (ends_stream) return send_trailers(stream, block, count);
    h2_put_headers(c, shown->id, block, count, false);
    return h2_settle(c);
}

int http2_finish(struct http2_stream *shown) {
    struct h2_stream *stream = h2_of(shown);
    struct http2_connection *c = shown->connection;
    if (stream->is_gone || c->is_server || c->is_over) return -1;
    if (stream->ending) return 0;
    stream->ending = H2_FINISHES;
    h2_end_sending(stream);
    return h2_settle(c);
}
