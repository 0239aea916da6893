/* Queues between the native thread and Python. */

#include "handover.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

int handover_begin(struct handover *handover) {
    handover->event_end = &handover->first_event;
    handover->command_end = &handover->first_command;
    handover->told = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    handover->asked = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (handover->told < 0 || handover->asked < 0) return -1;
    errno = pthread_mutex_init(&handover->lock, NULL);
    return errno ? -1 : 0;
}

void handover_end(struct handover *handover) {
    for (struct event *event = handover->first_event; event;) {
        struct event *next = event->next;
        free_event(event);
        event = next;
    }
    for (struct command *command = handover->first_command; command;) {
        struct command *next = command->next;
        free_command(command);
        command = next;
    }
    if (handover->told >= 0) close(handover->told);
    if (handover->asked >= 0) close(handover->asked);
    pthread_mutex_destroy(&handover->lock);
}

static void ring(int eventfd) {
    const uint64_t one = 1;
    while (write(eventfd, &one, sizeof one) < 0 && errno == EINTR) {
    }
}

static void silence(int eventfd) {
    uint64_t count;
    while (read(eventfd, &count, sizeof count) < 0 && errno == EINTR) {
    }
}

void wake(struct handover *handover) { ring(handover->asked); }

struct event *new_event(enum event_kind kind, uint64_t number, const char *data, size_t count) {
    struct event *event = malloc(sizeof *event + count);
    if (!event) return NULL;
    char *copy = (char *)(event + 1);
    if (count) memcpy(copy, data, count);
    *event = (struct event){.kind = kind, .number = number, .data = copy, .count = count};
    return event;
}

void free_event(struct event *event) {
    free(event->kept);
    free(event);
}

void tell(struct handover *handover, struct event *event) {
    event->next = NULL;
    pthread_mutex_lock(&handover->lock);
    const int was_empty = !handover->first_event;
    *handover->event_end = event;
    handover->event_end = &event->next;
    handover->num_events++;
    handover->num_bytes += event->count;
    pthread_mutex_unlock(&handover->lock);
    if (was_empty) ring(handover->told);
}

int handover_is_full(struct handover *handover) {
    pthread_mutex_lock(&handover->lock);
    const int is_full =
        handover->num_events >= handover->max_events || handover->num_bytes >= handover->max_bytes;
    handover->was_full |= is_full;
    pthread_mutex_unlock(&handover->lock);
    return is_full;
}

void free_command(struct command *command) {
    free(command->settled);
    free(command);
}

struct command *take_commands(struct handover *handover) {
    silence(handover->asked);
    pthread_mutex_lock(&handover->lock);
    struct command *first = handover->first_command;
    handover->first_command = NULL;
    handover->command_end = &handover->first_command;
    pthread_mutex_unlock(&handover->lock);
    return first;
}

int ask(struct handover *handover, enum command_kind kind, uint64_t number, const char *data,
        size_t count) {
    struct command *command = malloc(sizeof *command + count);
    if (!command) return -1;
    *command = (struct command){.kind = kind, .number = number, .count = count};
    if (kind == SETTLE && !(command->settled = new_event(SETTLED, number, NULL, 0))) {
        free(command);
        return -1;
    }
    if (count) memcpy(command->data, data, count);
    pthread_mutex_lock(&handover->lock);
    const int was_empty = !handover->first_command;
    *handover->command_end = command;
    handover->command_end = &command->next;
    pthread_mutex_unlock(&handover->lock);
    if (was_empty) wake(handover);
    return 0;
}

struct event *take_events(struct handover *handover) {
    silence(handover->told);
    pthread_mutex_lock(&handover->lock);
    struct event *first = handover->first_event;
    const int was_full = handover->was_full;
    handover->first_event = NULL;
    handover->event_end = &handover->first_event;
    handover->num_events = handover->num_bytes = 0;
    handover->was_full = 0;
    pthread_mutex_unlock(&handover->lock);
    if (was_full) wake(handover);
    return first;
}

void put_back(struct handover *handover, struct event *first) {
    struct event *last = first;
    size_t num_events = 1, num_bytes = first->count;
    for (; last->next; last = last->next) {
        num_events++;
        num_bytes += last->next->count;
    }
    pthread_mutex_lock(&handover->lock);
    last->next = handover->first_event;
    if (!last->next) handover->event_end = &last->next;
    handover->first_event = first;
    handover->num_events += num_events;
    handover->num_bytes += num_bytes;
    pthread_mutex_unlock(&handover->lock);
    ring(handover->told);
}
