/* The pool of threads. They are started when they are first wanted, by the thread that wants them,
 * so that they stay on its cores; they sleep, and spin only while their crew is gathered. */

#define _GNU_SOURCE /* pthread_setname_np */

#include "workers.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>

/* So many multiplications take as long as reading a number. */
#define MULTIPLICATIONS_A_NUMBER 16

/* Some tens of microseconds, which is how long what lies between two products of a layer takes:
 * after that even a thread with a crew sleeps. Who waits for a part to be computed spins longer,
 * since waking from sleep can take longer than the part. */
#define MOST_SPINS 2000
#define MOST_WAITING_SPINS (8 * MOST_SPINS)

#define MOST_THREADS 256

/* Parts that are being computed; on the stack of the thread that shares them out. */
struct job {
    part_function compute;
    const void *call;
    int64_t num_parts;
    int num_threads, num_joined; /* `num_joined` is under the lock */
    _Atomic int64_t next;
};

static struct {
    _Atomic int num_wanted;
    _Atomic int64_t numbers_each;
    pthread_mutex_t in_use;        /* held while a crew is gathered */
    int num_started, is_fork_safe; /* of its holder */
    _Atomic int is_gathered;

    pthread_mutex_t lock;
    pthread_cond_t called, left;
    struct job *job;        /* under the lock */
    int num_asleep;         /* too */
    _Atomic uint32_t news;  /* changed under the lock: there is a crew, or a job */
    _Atomic int num_inside; /* threads in a job; changed under the lock */
} pool = {
    .num_wanted = 1,
    .numbers_each = 1,
    .in_use = PTHREAD_MUTEX_INITIALIZER,
    .lock = PTHREAD_MUTEX_INITIALIZER,
    .called = PTHREAD_COND_INITIALIZER,
    .left = PTHREAD_COND_INITIALIZER,
};

static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

void set_num_threads(int64_t count, int64_t numbers_each) {
    const int wanted = count < MOST_THREADS ? (int)count : MOST_THREADS;
    atomic_store(&pool.numbers_each, numbers_each);
    atomic_store(&pool.num_wanted, wanted);
}

int64_t num_threads(void) { return atomic_load(&pool.num_wanted); }

static void take_parts(struct job *job, int thread) {
    for (;;) {
        const int64_t part = atomic_fetch_add_explicit(&job->next, 1, memory_order_relaxed);
        if (part >= job->num_parts) return;
        job->compute(job->call, part, thread);
    }
}

/* Spins while a crew may soon have something, then sleeps. Returns with the lock held. */
static void await_news(uint32_t seen) {
    for (int spin = 0; spin < MOST_SPINS && atomic_load(&pool.is_gathered); spin++) {
        if (atomic_load(&pool.news) != seen) break;
        relax();
    }
    pthread_mutex_lock(&pool.lock);
    pool.num_asleep++;
    while (atomic_load(&pool.news) == seen) pthread_cond_wait(&pool.called, &pool.lock);
    pool.num_asleep--;
}

/* The number that a thread has in the job, or 0 where the job has threads enough. */
static int join(struct job *job) {
    if (!job || job->num_joined == job->num_threads) return 0;
    atomic_fetch_add(&pool.num_inside, 1);
    return job->num_joined++;
}

static void leave(void) {
    pthread_mutex_lock(&pool.lock);
    if (atomic_fetch_sub(&pool.num_inside, 1) == 1) pthread_cond_signal(&pool.left);
    pthread_mutex_unlock(&pool.lock);
}

static void *work(void *unused) {
    for (uint32_t seen = 0;;) {
        await_news(seen);
        seen = atomic_load(&pool.news);
        struct job *job = pool.job;
        const int thread = join(job);
        pthread_mutex_unlock(&pool.lock);
        if (!thread) continue;
        take_parts(job, thread);
        leave();
    }
    return unused;
}

/* A child has none of the threads, and nobody who held a lock. */
static void forget_threads(void) {
    pthread_mutex_init(&pool.in_use, NULL);
    pthread_mutex_init(&pool.lock, NULL);
    pthread_cond_init(&pool.called, NULL);
    pthread_cond_init(&pool.left, NULL);
    pool.num_started = pool.num_asleep = 0;
    pool.job = NULL;
    atomic_store(&pool.is_gathered, 0);
    atomic_store(&pool.num_inside, 0);
}

/* Whether there is one more. It never ends but with the process. */
static int start_thread(void) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, work, NULL)) return 0;
    pthread_detach(thread);
#if defined(__linux__)
    pthread_setname_np(thread, "kernels");
#endif
    pool.num_started++;
    return 1;
}

/* Starts what is missing of `wanted` threads beside the calling one; how many there are. Signals
 * stay with the threads of Python. */
static int start_threads(int wanted) {
    if (pool.num_started < wanted) {
        if (!pool.is_fork_safe) pool.is_fork_safe = !pthread_atfork(NULL, NULL, forget_threads);
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before);
        while (pool.is_fork_safe && pool.num_started < wanted && start_thread());
        pthread_sigmask(SIG_SETMASK, &before, NULL);
    }
    return pool.num_started < wanted ? pool.num_started : wanted;
}

/* Wakes as many threads as the crew is short of. */
static void tell(struct job *job, int num_threads) {
    pthread_mutex_lock(&pool.lock);
    pool.job = job;
    atomic_fetch_add(&pool.news, 1);
    for (int awake = pool.num_started - pool.num_asleep; awake < num_threads - 1; awake++)
        pthread_cond_signal(&pool.called);
    pthread_mutex_unlock(&pool.lock);
}

/* How many threads so much work is worth, at most those that are wanted. */
static int threads_for(int64_t multiplications, int64_t num_rows) {
    const int wanted = atomic_load(&pool.num_wanted);
    const int64_t numbers = multiplications / (num_rows > 0 ? num_rows : 1) +
                            multiplications / MULTIPLICATIONS_A_NUMBER;
    const int64_t worth = numbers / atomic_load(&pool.numbers_each);
    return worth < wanted ? (int)worth : wanted;
}

struct crew gather_crew(int64_t multiplications, int64_t num_rows) {
    const struct crew alone = {1};
    const int wanted = threads_for(multiplications, num_rows);
    if (wanted < 2 || pthread_mutex_trylock(&pool.in_use)) return alone;
    const struct crew crew = {1 + start_threads(wanted - 1)};
    if (crew.num_threads > 1) {
        atomic_store(&pool.is_gathered, 1);
        tell(NULL, crew.num_threads); /* so that they are awake when there is something to do */
        return crew;
    }
    pthread_mutex_unlock(&pool.in_use);
    return alone;
}

/* Nobody joins the job any more; waits for those that are in it. */
static void withdraw_job(void) {
    pthread_mutex_lock(&pool.lock);
    pool.job = NULL;
    pthread_mutex_unlock(&pool.lock);
    for (int spin = 0; spin < MOST_WAITING_SPINS && atomic_load(&pool.num_inside); spin++) relax();
    if (!atomic_load(&pool.num_inside)) return;
    pthread_mutex_lock(&pool.lock);
    while (atomic_load(&pool.num_inside)) pthread_cond_wait(&pool.left, &pool.lock);
    pthread_mutex_unlock(&pool.lock);
}

void run_parts(const struct crew *crew, part_function compute, const void *call,
               int64_t num_parts) {
    struct job job = {compute, call, num_parts, crew->num_threads, 1, 0};
    const int is_shared = crew->num_threads > 1 && num_parts > 1;
    if (is_shared) tell(&job, crew->num_threads);
    take_parts(&job, 0);
    if (is_shared) withdraw_job();
}

void dismiss_crew(const struct crew *crew) {
    if (crew->num_threads < 2) return;
    atomic_store(&pool.is_gathered, 0);
    pthread_mutex_unlock(&pool.in_use);
}
