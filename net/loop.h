// SPDX-License-Identifier: Apache-2.0
/*
 * One event loop: a thread, its libevent base, and a queue through which other threads reach it. Internal to net/.
 */
#ifndef CAIRN_NET_LOOP_H
#define CAIRN_NET_LOOP_H

#include "base/err.h"

#include <event2/event.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdatomic.h>
#include <stdint.h>

/* Something to run in the loop's thread. Embedded in the sender's allocation; run() owns it from then on. */
struct net_post {
	struct net_post *next;
	void (*run)(struct net_post *post);
};

/*
 * Many writers, one reader. Counted, because requests outlive their server: a queue that is closed takes no more posts,
 * and the sender runs them itself. The eventfd is written once a batch: by the first post after the reader emptied it, and
 * outside the lock.
 */
struct net_queue {
	_Atomic uint32_t refs;
	pthread_mutex_t lock; /* guards head, tail, closed */
	struct net_post *head, **tail;
	bool closed;
	int wake_fd;
	void (*on_free)(void *arg); /* what must outlive the requests hangs on the queue; may be NULL */
	void *on_free_arg;
	_Atomic uint64_t posts, wakes; /* relaxed: counters only */
};

struct err *net_queue_create(struct net_queue **ret) MUST_USE;
struct net_queue *net_queue_ref(struct net_queue *queue);
void net_queue_unref(struct net_queue *queue);
/** False when the queue is closed: the post is still the caller's. Any thread. */
bool net_queue_post(struct net_queue *queue, struct net_post *post);
/** Runs what is queued in the calling thread, after the reader is gone; takes no more. */
void net_queue_close(struct net_queue *queue);

struct net_loop {
	struct event_base *base;
	struct event *wake_event;
	struct net_queue *queue;
	pthread_t thread;
	bool started;
	unsigned index;
	char date[32];		 /* for `Date:`, of date_second */
	int64_t date_second;	 /* wall clock */
};

/** Creates and starts the thread "net-<index>" with all signals blocked. ERR_OS, ERR_NOMEM. */
struct err *net_loop_start(struct net_loop *loop, unsigned index) MUST_USE;
/**
 * Ends the loop from within its thread, after the events that are active now: bufferevents that were freed just before are
 * finalized by one, and libevent 2.1 forgets some of them when the loop is broken at once.
 */
void net_loop_exit(struct net_loop *loop);
/** Waits for the thread and closes the queue. */
void net_loop_join(struct net_loop *loop);
/** After net_loop_join; also of a loop that never started. */
void net_loop_deinit(struct net_loop *loop);
/** "Sun, 06 Nov 1994 08:49:37 GMT" of now. Loop thread. */
const char *net_loop_date(struct net_loop *loop);

/** CLOCK_MONOTONIC. */
uint64_t net_now_ns(void);
struct timeval net_timeval_ms(uint64_t ms);

#endif
