/* A barrier for the threads of an OpenMP region that soon goes to sleep. OpenMP's own spins for milliseconds,
 * and where another process holds a core, that keeps the thread that is waited for from running. So
 * every region ends in team_wait(), after which OpenMP's barrier finds all threads there already. */
#ifndef MAMBA_SPEECH_TEAM_H
#define MAMBA_SPEECH_TEAM_H

#include <pthread.h>
#if defined(_OPENMP)
#include <omp.h>
#endif

/* looks at the counter before going to sleep: about as long as a thread takes to wake */
enum { LOOKS = 2000 };

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t all_here;
    int arrived, round;
} team;

#define NEW_TEAM {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0}

static inline int team_size(void) {
#if defined(_OPENMP)
    return omp_get_num_threads();
#else
    return 1;
#endif
}

static inline void short_pause(void) {
#if defined(__SSE2__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static inline void team_wait(team *t) {
    int size = team_size();
    if (size == 1) return;
    pthread_mutex_lock(&t->lock);
    int round = t->round;
    if (++t->arrived == size) {
        t->arrived = 0;
        __atomic_store_n(&t->round, round + 1, __ATOMIC_RELEASE);
        pthread_cond_broadcast(&t->all_here);
        pthread_mutex_unlock(&t->lock);
        return;
    }
    pthread_mutex_unlock(&t->lock);
    for (int i = 0; i < LOOKS; i++) {
        if (__atomic_load_n(&t->round, __ATOMIC_ACQUIRE) != round) return;
        short_pause();
    }
    pthread_mutex_lock(&t->lock);
    while (t->round == round) pthread_cond_wait(&t->all_here, &t->lock);
    pthread_mutex_unlock(&t->lock);
}

#endif
