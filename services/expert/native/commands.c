/* What Python has the thread do. */

#include "plane.h"

#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

/* Serves the stream: its messages are read from now on. The grant is what it hears first. */
static void admit(struct stream *stream, const struct command *command) {
    struct connection *connection = stream->connection;
    if (http2_send_headers(stream->http2, command->data, command->count, 0) < 0) lose(connection);
    struct iovec grant_alone[1];
    send_message(stream, grant_alone, 0);
    stream->is_admitted = 1;
    if (!stream->is_held && http2_resume(stream->http2, SIZE_MAX) < 0) lose(connection);
    watch(connection);
}

static void reply(struct stream *stream, struct command *command) {
    struct iovec parts[] = {{command->data, command->count}, {0}};
    send_message(stream, parts, 1);
    settle_one(stream);
}

static void end(struct stream *stream, const struct command *command) {
    char *trailers = malloc(command->count + 1);
    if (trailers) {
        memcpy(trailers, command->data, command->count);
        free(stream->trailers);
        stream->trailers = trailers;
        stream->num_trailers = command->count;
    } else {
        lose(stream->connection);
    }
    stream->is_ending = 1;
    settle_one(stream);
}

static void obey_for_stream(struct stream *stream, struct command *command) {
    switch (command->kind) {
    case REPLY: reply(stream, command); break;
    case DONE: settle_one(stream); break;
    case END: end(stream, command); break;
    case CUT: cut_stream(stream, command->data, command->count); break;
    case CLOSE: lose(stream->connection); break;
    default: break;
    }
}

/* A stream's number is still in use when `admit` has run: it was in hand until then. */
static void admit_and_settle(struct plane *plane, const struct command *command) {
    struct stream *stream = find_stream(plane, command->number);
    if (stream) admit(stream, command);
    stream = find_stream(plane, command->number); /* reading may have ended it */
    if (stream) settle_one(stream);
}

/* Computes all that waits: what is in hand after that came later. */
static void settle(struct plane *plane, struct command *command) {
    while (plane->waiting.first_layer) run_batch(plane);
    tell(&plane->handover, command->settled);
    command->settled = NULL;
}

static void drain(struct plane *plane) {
    plane->is_draining = 1;
    if (!plane->is_deaf) epoll_ctl(plane->epoll, EPOLL_CTL_DEL, plane->listener, NULL);
    close(plane->listener);
    plane->listener = -1;
    for (struct connection *connection = plane->connections; connection;
         connection = connection->next) {
        if (http2_goaway(connection->http2, HTTP2_NO_ERROR) < 0) lose(connection);
        watch(connection);
    }
    for (int i = 0; i < NUM_BUCKETS; i++) {
        for (struct stream *stream = plane->buckets[i]; stream;) {
            struct stream *next = stream->next_in_bucket;
            end_stream(stream);
            stream = next;
        }
    }
}

static void obey(struct plane *plane, struct command *command) {
    if (command->kind == SETTLE) {
        settle(plane, command);
    } else if (command->kind == DRAIN) {
        if (!plane->is_draining) drain(plane);
    } else if (command->kind == ADMIT) {
        admit_and_settle(plane, command);
    } else {
        struct stream *stream = find_stream(plane, command->number);
        if (stream) obey_for_stream(stream, command);
    }
}

void obey_commands(struct plane *plane) {
    struct command *command = take_commands(&plane->handover);
    while (command) {
        struct command *next = command->next;
        obey(plane, command);
        free_command(command);
        command = next;
    }
}
