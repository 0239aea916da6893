/* What a stream is here, and how it ends. */

#include "plane.h"

#include <stdlib.h>
#include <string.h>

/* `grpc-status: 0`: a literal that is not put into a table (RFC 7541, section 6.2.2). */
static const char OK_TRAILERS[] = "\x00\x0bgrpc-status\x01"
                                  "0";

static struct stream **bucket_of(struct plane *plane, uint64_t number) {
    return plane->buckets + number % NUM_BUCKETS;
}

struct stream *open_stream(struct connection *connection, struct http2_stream *http2) {
    struct plane *plane = connection->plane;
    struct stream *stream = calloc(1, sizeof *stream);
    if (!stream) return NULL;
    stream->number = ++plane->last_number;
    stream->gone = new_event(STREAM_GONE, stream->number, NULL, 0);
    if (!stream->gone) {
        free(stream);
        return NULL;
    }
    stream->connection = connection;
    stream->http2 = http2;
    stream->granted_pairs = plane->window_pairs;
    http2->owner = stream;
    connection->num_streams++;
    struct stream **bucket = bucket_of(plane, stream->number);
    pthread_mutex_lock(&plane->streams_lock);
    stream->next_in_bucket = *bucket;
    *bucket = stream;
    pthread_mutex_unlock(&plane->streams_lock);
    return stream;
}

struct stream *find_stream(struct plane *plane, uint64_t number) {
    struct stream *stream = *bucket_of(plane, number);
    while (stream && stream->number != number) stream = stream->next_in_bucket;
    return stream;
}

static void take_out(struct stream *stream) {
    struct plane *plane = stream->connection->plane;
    struct stream **link = bucket_of(plane, stream->number);
    while (*link != stream) link = &(*link)->next_in_bucket;
    pthread_mutex_lock(&plane->streams_lock);
    *link = stream->next_in_bucket;
    pthread_mutex_unlock(&plane->streams_lock);
}

static void let_go(struct stream *stream) {
    if (!stream->is_held) return;
    stream->is_held = 0;
    *stream->held_at = stream->next_held;
    if (stream->next_held) stream->next_held->held_at = stream->held_at;
}

static void drop_waiting(struct stream *stream) {
    if (!stream->num_waiting) return;
    struct waiting_frame *frame = take_of_stream(&stream->connection->plane->waiting, stream, 0);
    while (frame) {
        struct waiting_frame *next = frame->next;
        free_event(&frame->event);
        frame = next;
    }
}

void forget_stream(struct stream *stream) {
    drop_waiting(stream);
    take_out(stream);
    let_go(stream);
    stream->connection->num_streams--;
    tell(&stream->connection->plane->handover, stream->gone);
    free(stream->trailers);
    free(stream);
}

void cut_stream(struct stream *stream, const char *trailers, size_t count) {
    struct connection *connection = stream->connection;
    stream->http2->owner = NULL; /* there is no further event for it, and it may be freed now */
    if (http2_send_headers(stream->http2, trailers, count, 1) < 0) lose(connection);
    forget_stream(stream);
    watch(connection);
}

static void end_if_done(struct stream *stream) {
    if (!stream->is_ending || stream->num_in_hand) return;
    const char *trailers = stream->trailers ? stream->trailers : OK_TRAILERS;
    cut_stream(stream, trailers, stream->trailers ? stream->num_trailers : sizeof OK_TRAILERS - 1);
}

void settle_one(struct stream *stream) {
    stream->num_in_hand--;
    end_if_done(stream);
}

void end_stream(struct stream *stream) {
    stream->is_ending = 1;
    end_if_done(stream);
}

void hold(struct stream *stream) {
    if (stream->is_held) return;
    struct plane *plane = stream->connection->plane;
    http2_pause(stream->http2);
    stream->is_held = 1;
    stream->next_held = plane->held;
    stream->held_at = &plane->held;
    if (plane->held) plane->held->held_at = &stream->next_held;
    plane->held = stream;
}

static int has_room(struct stream *stream) {
    struct plane *plane = stream->connection->plane;
    return stream->http2->num_unsent <= plane->limits.max_unsent &&
           plane->waiting.num_bytes <= plane->limits.max_waiting_bytes &&
           !handover_is_full(&plane->handover);
}

void release_held(struct plane *plane) {
    struct stream *next;
    for (struct stream *stream = plane->held; stream; stream = next) {
        next = stream->next_held; /* what is handed out now may end this stream, but no other */
        struct connection *connection = stream->connection;
        if (connection->is_lost || !has_room(stream)) continue;
        let_go(stream);
        if (http2_resume(stream->http2, SIZE_MAX) < 0) lose(connection);
        watch(connection);
    }
}
