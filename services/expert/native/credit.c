/* The credit of streams: cumulative numbers of pairs, counted on both sides and said with every
 * message. */

#include "plane.h"
#include "reply.h"

void send_message(struct stream *stream, struct iovec *parts, int num_parts) {
    struct connection *connection = stream->connection;
    if (connection->is_lost) return;
    char granted[1 + MOST_VARINT_BYTES];
    struct sink to = {.at = granted};
    put_number(&to, GRANTED_PAIRS, atomic_load(&stream->granted_pairs));
    parts[num_parts] = (struct iovec){granted, to.count};
    if (http2_send(stream->http2, parts, num_parts + 1) < 0) lose(connection);
    watch(connection);
    if (stream->http2->num_unsent > connection->plane->limits.max_unsent) hold(stream);
}

int take_credit(struct plane *plane, uint64_t number, uint64_t num_pairs) {
    int is_held = 1;
    pthread_mutex_lock(&plane->streams_lock);
    struct stream *stream = find_stream(plane, number);
    if (stream) {
        const uint64_t taken = atomic_fetch_add(&stream->taken_pairs, num_pairs) + num_pairs;
        is_held = taken <= atomic_load(&stream->granted_pairs);
    }
    pthread_mutex_unlock(&plane->streams_lock);
    return is_held;
}

void grant_credit(struct plane *plane, uint64_t number, uint64_t num_pairs) {
    pthread_mutex_lock(&plane->streams_lock);
    struct stream *stream = find_stream(plane, number);
    if (stream) atomic_fetch_add(&stream->granted_pairs, num_pairs);
    pthread_mutex_unlock(&plane->streams_lock);
}
