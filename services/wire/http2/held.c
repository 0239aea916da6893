/* What is held of a peer's messages: of those that are not whole yet, and on paused streams. */

#include "connection.h"

void h2_count_held(struct h2_stream *stream) {
    const size_t before = stream->held;
    stream->held = h2_held(&stream->in) + h2_held(&stream->kept_trailers);
    if (stream->is_gone) stream->held = 0;
    if (!h2_held(&stream->in))
        stream->begun_nanos = 0;
    else if (!stream->begun_nanos)
        stream->begun_nanos = h2_now_nanos();
    h2_connection(stream)->num_held_bytes += stream->held - before;
}

/* A message of any size, alone, has its place under every bound. */
static size_t most(const struct http2_connection *c) {
    const size_t least = c->our_stream_window, most = c->limits.max_held_bytes;
    return most < least ? least : most;
}

size_t h2_room_to_hold(const struct http2_connection *c) {
    return c->num_held_bytes < most(c) ? most(c) - c->num_held_bytes : 0;
}

void h2_drop_held(struct h2_stream *stream) {
    if (stream->is_handing_out) return;
    h2_discard(&stream->in);
    h2_discard(&stream->kept_trailers);
    h2_count_held(stream);
}

size_t http2_held_bytes(const struct http2_stream *stream) {
    return ((const struct h2_stream *)stream)->held;
}

uint64_t http2_message_nanos(const struct http2_stream *shown) {
    const struct h2_stream *stream = (const struct h2_stream *)shown;
    return stream->is_paused ? 0 : stream->begun_nanos;
}

uint64_t http2_frame_nanos(const struct http2_connection *c) { return c->frame_nanos; }

size_t http2_all_held_bytes(const struct http2_connection *c) { return c->num_held_bytes; }

int http2_count_held(struct http2_connection *c, ptrdiff_t change) {
    c->num_held_bytes += (size_t)change;
    return c->num_held_bytes <= most(c);
}
