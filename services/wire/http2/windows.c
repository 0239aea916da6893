/* Flow control both ways, RFC 9113, section 5.2. */

#include "connection.h"

/* So that control frames and other streams get their turn between pieces of a long message. */
#define MAX_SENT_FRAME_BYTES ((size_t)1 << 21)

/* How much DATA one frame of the stream may carry, once `planned` bytes of the connection and what
 * is planned of the stream are sent. */
size_t h2_sendable(const struct h2_stream *stream, size_t planned) {
    const struct http2_connection *c = h2_connection(stream);
    const int64_t of_stream = stream->send_window - (int64_t)stream->planned;
    const int64_t of_connection = c->send_window - (int64_t)planned;
    const int64_t window = of_stream < of_connection ? of_stream : of_connection;
    if (window <= 0) return 0;
    size_t most = c->peer_frame_bytes;
    if (most > MAX_SENT_FRAME_BYTES) most = MAX_SENT_FRAME_BYTES;
    return (uint64_t)window < most ? (size_t)window : most;
}

void h2_sent(struct h2_stream *stream, size_t count) {
    stream->send_window -= (int64_t)count;
    h2_connection(stream)->send_window -= (int64_t)count;
}

void h2_took_frame(struct http2_connection *c, struct h2_stream *stream, uint32_t count) {
    if (count > c->receive_window) {
        h2_fail(c, HTTP2_FLOW_CONTROL_ERROR, "the peer sent more than the connection's window");
        return;
    }
    c->receive_window -= count;
    if (stream) stream->receive_window -= count;
}

/* Bytes were read and need their window no more; a stream's may still be withheld. The
 * connection's is given back for those too, since one paused stream must not stop the others. */
void h2_consume(struct http2_connection *c, struct h2_stream *stream, size_t count) {
    c->consumed += count;
    if (c->consumed >= c->our_window / 2) {
        h2_put_word_frame(c, H2_WINDOW_UPDATE, 0, (uint32_t)c->consumed);
        c->receive_window += (int64_t)c->consumed;
        c->consumed = 0;
    }
    if (!stream) return;
    stream->withheld += count;
    h2_return_window(stream);
}

void h2_return_window(struct h2_stream *stream) {
    struct http2_connection *c = h2_connection(stream);
    if (stream->is_gone || stream->is_silent || stream->remote_ended) return;
    const size_t kept = stream->is_paused ? h2_held(&stream->in) : 0;
    if (stream->withheld > kept) {
        stream->consumed += stream->withheld - kept;
        stream->withheld = kept;
    }
    if (stream->consumed < c->our_stream_window / 2) return;
    h2_put_word_frame(c, H2_WINDOW_UPDATE, stream->shown.id, (uint32_t)stream->consumed);
    stream->receive_window += (int64_t)stream->consumed;
    stream->consumed = 0;
}

static void enlarge_stream(struct h2_stream *stream, uint32_t more) {
    if (!more)
        h2_stream_error(stream, HTTP2_PROTOCOL_ERROR);
    else if (stream->send_window + more > H2_MAX_WINDOW)
        h2_stream_error(stream, HTTP2_FLOW_CONTROL_ERROR);
    else
        stream->send_window += more;
}

static void enlarge(struct http2_connection *c, uint32_t more) {
    if (!more)
        h2_fail(c, HTTP2_PROTOCOL_ERROR, "a window was enlarged by nothing");
    else if (c->send_window + more > H2_MAX_WINDOW)
        h2_fail(c, HTTP2_FLOW_CONTROL_ERROR, "a window was enlarged too far");
    else
        c->send_window += more;
}

void h2_take_window_update(struct http2_connection *c, struct h2_frame frame, const char *payload) {
    h2_count_tenth(c);
    const uint32_t more = h2_get_word(payload) & H2_MAX_WINDOW;
    if (!frame.stream) {
        enlarge(c, more);
        return;
    }
    struct h2_stream *stream = h2_find(c, frame.stream);
    if (stream)
        enlarge_stream(stream, more);
    else if (h2_is_idle(c, frame.stream))
        h2_fail(c, HTTP2_PROTOCOL_ERROR, "a window came for a stream that was never opened");
}

/* Streams that are open change by as much, and may fall below nothing. */
void h2_change_peer_window(struct http2_connection *c, uint32_t window) {
    const int64_t change = (int64_t)window - c->peer_stream_window;
    c->peer_stream_window = window;
    for (size_t i = 0; i < c->num_streams; i++) {
        c->streams[i]->send_window += change;
        if (c->streams[i]->send_window > H2_MAX_WINDOW)
            h2_fail(c, HTTP2_FLOW_CONTROL_ERROR, "a window was enlarged too far");
    }
}
