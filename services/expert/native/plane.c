/* The plane's beginning and end. */

#define _GNU_SOURCE /* pthread_setname_np */

#include "plane.h"

#include "tls.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

const struct plane_limits plane_limits_default = {
    .max_waiting_bytes = (size_t)256 << 20,
    .max_events = 4096,
    .max_event_bytes = (size_t)64 << 20,
    .max_unsent = 64,
    .max_connections = 1024,
};

static int watch_reading(struct plane *plane, int fd, void *pointer) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = pointer};
    return epoll_ctl(plane->epoll, EPOLL_CTL_ADD, fd, &event);
}

static int begin_parts(struct plane *plane) {
    plane->ended = new_event(THREAD_ENDED, 0, NULL, 0);
    plane->seen = calloc((size_t)plane->bank.experts.num_slots, sizeof *plane->seen);
    if (!plane->ended || !plane->seen || waiting_begin(&plane->waiting, plane->bank.num_layers) ||
        records_begin(&plane->records, plane->bank.num_layers)) {
        errno = ENOMEM;
        return -1;
    }
    return watch_reading(plane, plane->listener, &plane->listener) < 0 ||
                   watch_reading(plane, plane->handover.asked, &plane->handover) < 0
               ? -1
               : 0;
}

static void *in_thread(void *plane) {
    run_plane(plane);
    return NULL;
}

/* Signals stay with the threads of Python. */
static int start_thread(struct plane *plane) {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    errno = pthread_create(&plane->thread, NULL, in_thread, plane);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (errno) return -1;
    plane->has_thread = 1;
    pthread_setname_np(plane->thread, "native-plane");
    return 0;
}

int begin_plane(struct plane *plane, struct tls_context *tls) {
    pthread_mutex_init(&plane->streams_lock, NULL);
    pthread_mutex_init(&plane->tls_lock, NULL);
    secure_plane(plane, tls);
    plane->handover.max_events = plane->limits.max_events;
    plane->handover.max_bytes = plane->limits.max_event_bytes;
    plane->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (handover_begin(&plane->handover) == 0 && plane->epoll >= 0 && begin_parts(plane) == 0 &&
        start_thread(plane) == 0)
        return 0;
    const int error = errno;
    end_plane(plane);
    errno = error;
    return -1;
}

void stop_plane(struct plane *plane) {
    if (!plane->has_thread) return;
    atomic_store(&plane->is_stopping, 1);
    wake(&plane->handover);
    pthread_join(plane->thread, NULL);
    plane->has_thread = 0;
}

void secure_plane(struct plane *plane, struct tls_context *tls) {
    if (tls) tls->calls->hold(tls);
    pthread_mutex_lock(&plane->tls_lock);
    struct tls_context *const before = plane->tls;
    plane->tls = tls;
    pthread_mutex_unlock(&plane->tls_lock);
    if (before) before->calls->release(before);
}

void end_plane(struct plane *plane) {
    stop_plane(plane);
    secure_plane(plane, NULL);
    if (plane->listener >= 0) close(plane->listener);
    if (plane->epoll >= 0) close(plane->epoll);
    waiting_end(&plane->waiting);
    records_end(&plane->records);
    handover_end(&plane->handover);
    pthread_mutex_destroy(&plane->streams_lock);
    pthread_mutex_destroy(&plane->tls_lock);
    free(plane->ended);
    free(plane->seen);
    free(plane->room.memory);
}
