/* The table of streams and their states, RFC 9113, section 5.1.
 *
 * Ids only go up, so a stream that is neither in the table nor above the last one opened is closed;
 * nothing has to be remembered of it. */

#include "connection.h"

#include <stdlib.h>
#include <string.h>

/* Where the stream of this id is in the table, or would be. */
static size_t place_of(const struct http2_connection *c, uint32_t id) {
    size_t low = 0, high = c->num_streams;
    while (low < high) {
        const size_t middle = (low + high) / 2;
        if (c->streams[middle]->shown.id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

struct h2_stream *h2_find(const struct http2_connection *c, uint32_t id) {
    const size_t place = place_of(c, id);
    if (place == c->num_streams || c->streams[place]->shown.id != id) return NULL;
    return c->streams[place];
}

/* Only clients open streams, by odd numbers: nothing is pushed. */
bool h2_is_idle(const struct http2_connection *c, uint32_t id) {
    return !(id & 1) || id > c->last_id;
}

struct http2_stream *http2_next_stream(struct http2_connection *c, struct http2_stream *stream) {
    size_t place = stream ? place_of(c, stream->id + 1) : 0;
    while (place < c->num_streams && c->streams[place]->is_silent) place++; /* forgotten */
    return place < c->num_streams ? &c->streams[place]->shown : NULL;
}

struct http2_stream *http2_find(const struct http2_connection *c, uint32_t id) {
    struct h2_stream *stream = h2_find(c, id);
    return stream && !stream->is_silent ? &stream->shown : NULL;
}

static int make_room(struct http2_connection *c) {
    if (c->num_streams < c->streams_room) return 0;
    const size_t room = c->streams_room ? 2 * c->streams_room : 4;
    struct h2_stream **streams = realloc(c->streams, room * sizeof *streams);
    if (!streams) return -1;
    c->streams = streams;
    c->streams_room = room;
    return 0;
}

struct h2_stream *h2_add(struct http2_connection *c, uint32_t id) {
    if (make_room(c) < 0) return NULL;
    struct h2_stream *stream = calloc(1, sizeof *stream);
    if (!stream) return NULL;
    stream->shown.connection = c;
    stream->shown.id = id;
    stream->send_window = c->peer_stream_window;
    stream->receive_window = c->our_stream_window;
    c->streams[c->num_streams++] = stream;
    c->last_id = id;
    return stream;
}

void h2_forget(struct h2_stream *stream) {
    struct http2_connection *c = h2_connection(stream);
    const size_t place = place_of(c, stream->shown.id);
    c->num_streams--;
    memmove(c->streams + place, c->streams + place + 1,
            (c->num_streams - place) * sizeof *c->streams);
    if (c->data_stream == stream) c->data_stream = NULL;
    h2_drop_pending(stream);
    stream->is_gone = true;
    h2_count_held(stream);
    stream->next = c->gone;
    c->gone = stream;
    if (!c->depth) h2_free_gone(c);
}

void h2_free_gone(struct http2_connection *c) {
    while (c->gone) {
        struct h2_stream *stream = c->gone;
        c->gone = stream->next;
        h2_discard(&stream->pending);
        h2_discard(&stream->trailers);
        h2_discard(&stream->in);
        h2_discard(&stream->kept_trailers);
        free(stream);
    }
}

void h2_reset(struct h2_stream *stream, uint32_t code) {
    struct http2_connection *c = h2_connection(stream);
    h2_forget(stream);
    if (!stream->is_silent) c->events->reset(&stream->shown, code);
}

void h2_stream_error(struct h2_stream *stream, enum http2_error code) {
    struct http2_connection *c = h2_connection(stream);
    h2_count_control(c);
    h2_put_word_frame(c, H2_RST_STREAM, stream->shown.id, code);
    h2_reset(stream, code);
}

void h2_local_ends(struct h2_stream *stream) {
    struct http2_connection *c = h2_connection(stream);
    stream->local_ended = true;
    if (!stream->remote_ended && c->is_server)
        h2_put_word_frame(c, H2_RST_STREAM, stream->shown.id, HTTP2_NO_ERROR);
    else if (!stream->end_told && !stream->is_silent)
        return;
    h2_forget(stream);
}

/* What is wrong with DATA on this stream; NO_ERROR for nothing. */
static enum http2_error wrong_with_data(const struct h2_stream *stream, uint32_t count) {
    if (stream->remote_ended) return HTTP2_STREAM_CLOSED;
    if (!stream->has_headers) return HTTP2_PROTOCOL_ERROR;
    return count > stream->receive_window ? HTTP2_FLOW_CONTROL_ERROR : HTTP2_NO_ERROR;
}

void h2_begin_data(struct http2_connection *c, struct h2_frame frame, size_t padding) {
    c->data_stream = NULL;
    if (h2_is_idle(c, frame.stream)) {
        h2_fail(c, HTTP2_PROTOCOL_ERROR, "DATA came on a stream that was never opened");
        return;
    }
    if (!frame.count && !c->data_ends_stream) h2_count_control(c);
    struct h2_stream *stream = h2_find(c, frame.stream);
    if (stream) {
        const enum http2_error wrong = wrong_with_data(stream, frame.count);
        if (wrong) {
            h2_stream_error(stream, wrong);
            stream = NULL;
        }
    }
    c->data_ends_stream = c->data_ends_stream && stream;
    c->data_stream = stream;
    if (stream && frame.count) stream->has_messages = true;
    h2_took_frame(c, stream, frame.count);
    h2_consume(c, stream, padding);
}

int http2_reset(struct http2_stream *shown, enum http2_error code) {
    struct h2_stream *stream = h2_of(shown);
    struct http2_connection *c = shown->connection;
    if (stream->is_gone) return -1;
    if (!c->is_over) h2_put_word_frame(c, H2_RST_STREAM, shown->id, code);
    h2_forget(stream);
    return h2_settle(c);
}
