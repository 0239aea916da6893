/* The thread: reads all that is readable, computes one layer, and looks again at what came
 * meanwhile. */

#include "plane.h"

#include <errno.h>
#include <sys/epoll.h>
#include <time.h>

#define MAX_READY 256
#define NANOS_A_SECOND UINT64_C(1000000000)
/* How soon it is tried again to accept connections. */
#define DEAF_MILLISECONDS 100
/* How long peers that were told everything may take to close their side. */
#define LINGER_NANOS NANOS_A_SECOND
#define LINGER_MILLISECONDS 50

uint64_t monotonic_nanos(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NANOS_A_SECOND + (uint64_t)now.tv_nsec;
}

static int waits_for(const struct plane *plane) {
    if (plane->waiting.first_layer) return 0;
    if (plane->linger_until) return LINGER_MILLISECONDS;
    if (plane->is_deaf) return DEAF_MILLISECONDS;
    return plane->has_silent ? LOOK_MILLISECONDS : -1;
}

static void look_at(struct plane *plane, const struct epoll_event *ready) {
    if (ready->data.ptr == &plane->listener) {
        accept_connections(plane);
    } else if (ready->data.ptr == &plane->handover) {
        obey_commands(plane);
    } else {
        struct connection *connection = ready->data.ptr;
        if (ready->events & EPOLLOUT && !connection->is_lost) flush_to(connection);
        if (ready->events & ~(uint32_t)EPOLLOUT && !connection->is_lost) receive_from(connection);
    }
}

/* Whether all is said and heard, or was long enough ago. */
static int has_drained(struct plane *plane) {
    if (!plane->is_draining || !shut_drained(plane)) return 0;
    if (!plane->connections) return 1;
    const uint64_t now = monotonic_nanos();
    if (!plane->linger_until) plane->linger_until = now + LINGER_NANOS;
    return now >= plane->linger_until;
}

/* To whoever reads the counters. */
static void show_waiting(struct plane *plane) {
    atomic_store_explicit(&plane->records.num_waiting_pairs, (uint64_t)plane->waiting.num_pairs,
                          memory_order_relaxed);
}

static void turn(struct plane *plane) {
    struct epoll_event ready[MAX_READY];
    const int count = epoll_wait(plane->epoll, ready, MAX_READY, waits_for(plane));
    listen_again(plane);
    for (int i = 0; i < count; i++) look_at(plane, ready + i);
    show_waiting(plane);
    if (plane->waiting.first_layer) run_batch(plane);
    show_waiting(plane);
    if (plane->held) release_held(plane);
    lose_silent(plane);
    close_lost(plane);
}

void run_plane(struct plane *plane) {
    while (!atomic_load(&plane->is_stopping) && !has_drained(plane)) turn(plane);
    for (struct connection *connection = plane->connections; connection;
         connection = connection->next)
        lose(connection);
    close_lost(plane);
    tell(&plane->handover, plane->ended);
    plane->ended = NULL;
}
