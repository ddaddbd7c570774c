// SPDX-License-Identifier: Apache-2.0
#include "net/loop.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <time.h>

uint64_t net_now_ns(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

struct timeval net_timeval_ms(uint64_t ms)
{
	return (struct timeval){.tv_sec = (time_t)(ms / 1000), .tv_usec = (suseconds_t)(ms % 1000 * 1000)};
}

struct err *net_queue_create(struct net_queue **ret)
{
	struct net_queue *queue = calloc(1, sizeof(*queue));

	if (!queue)
		return err_nomem();
	queue->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (queue->wake_fd < 0) {
		int error = errno;
		free(queue);
		return err_os(error, "eventfd");
	}
	queue->refs = 1;
	queue->tail = &queue->head;
	pthread_mutex_init(&queue->lock, NULL);
	*ret = queue;
	return NULL;
}

struct net_queue *net_queue_ref(struct net_queue *queue)
{
	/* Relaxed: whoever takes a reference already holds one. */
	atomic_fetch_add_explicit(&queue->refs, 1, memory_order_relaxed);
	return queue;
}

void net_queue_unref(struct net_queue *queue)
{
	/* Acquire-release: the last one must see what the others did before they let go. */
	if (!queue || atomic_fetch_sub_explicit(&queue->refs, 1, memory_order_acq_rel) != 1)
		return;
	(void)close(queue->wake_fd);
	pthread_mutex_destroy(&queue->lock);
	if (queue->on_free)
		queue->on_free(queue->on_free_arg);
	free(queue);
}

bool net_queue_post(struct net_queue *queue, struct net_post *post)
{
	post->next = NULL;
	pthread_mutex_lock(&queue->lock);
	bool closed = queue->closed;
	bool first = queue->head == NULL;
	if (!closed) {
		*queue->tail = post;
		queue->tail = &post->next;
	}
	pthread_mutex_unlock(&queue->lock);
	if (closed)
		return false;
	atomic_fetch_add_explicit(&queue->posts, 1, memory_order_relaxed);
	if (first) {
		uint64_t one = 1;
		atomic_fetch_add_explicit(&queue->wakes, 1, memory_order_relaxed);
		/* It can only fail when the counter is full, and then the reader is awake anyhow. */
		ssize_t written = write(queue->wake_fd, &one, sizeof(one));
		(void)written;
	}
	return true;
}

static struct net_post *queue_take_all(struct net_queue *queue, bool close_it)
{
	pthread_mutex_lock(&queue->lock);
	struct net_post *all = queue->head;
	queue->head = NULL;
	queue->tail = &queue->head;
	queue->closed |= close_it;
	pthread_mutex_unlock(&queue->lock);
	return all;
}

static void run_all(struct net_post *post)
{
	while (post) {
		struct net_post *next = post->next;
		post->run(post);
		post = next;
	}
}

void net_queue_close(struct net_queue *queue)
{
	run_all(queue_take_all(queue, true));
}

static void on_wake(evutil_socket_t fd, short what, void *arg)
{
	struct net_queue *queue = arg;
	uint64_t count;

	(void)what;
	/* Emptied before the list is taken: a post that comes in between wakes once too often, never too seldom. */
	ssize_t got = read(fd, &count, sizeof(count));
	(void)got;
	run_all(queue_take_all(queue, false));
}

static void *loop_thread(void *arg)
{
	struct net_loop *loop = arg;

	(void)event_base_loop(loop->base, EVLOOP_NO_EXIT_ON_EMPTY);
	return NULL;
}

static struct event_base *base_create(void)
{
	struct event_config *config = event_config_new();
	struct event_base *base = NULL;

	if (!config)
		return NULL;
	/* Other threads come in by the queue only, so the base needs no lock. */
	if (event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK) == 0)
		base = event_base_new_with_config(config);
	event_config_free(config);
	return base;
}

struct err *net_loop_start(struct net_loop *loop, unsigned index)
{
	sigset_t all, old;
	char name[16];

	loop->index = index;
	loop->date_second = -1;
	TRY(net_queue_create(&loop->queue));
	loop->base = base_create();
	if (!loop->base)
		return err_nomem();
	loop->wake_event = event_new(loop->base, loop->queue->wake_fd, EV_READ | EV_PERSIST, on_wake, loop->queue);
	if (!loop->wake_event || event_add(loop->wake_event, NULL) != 0)
		return err_nomem();
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	int error = pthread_create(&loop->thread, NULL, loop_thread, loop);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (error)
		return err_os(error, "start loop %u", index);
	loop->started = true;
	(void)snprintf(name, sizeof(name), "net-%u", index % 1000);
	(void)pthread_setname_np(loop->thread, name);
	return NULL;
}

void net_loop_exit(struct net_loop *loop)
{
	(void)event_base_loopexit(loop->base, NULL);
}

void net_loop_join(struct net_loop *loop)
{
	if (loop->started)
		pthread_join(loop->thread, NULL);
	loop->started = false;
	if (loop->queue)
		net_queue_close(loop->queue);
}

void net_loop_deinit(struct net_loop *loop)
{
	if (loop->wake_event)
		event_free(loop->wake_event);
	if (loop->base)
		event_base_free(loop->base);
	net_queue_unref(loop->queue);
	loop->wake_event = NULL;
	loop->base = NULL;
	loop->queue = NULL;
}

const char *net_loop_date(struct net_loop *loop)
{
	struct timespec now;
	struct tm tm;

	/* The coarse clock costs a few nanoseconds; the text changes once a second. */
	(void)clock_gettime(CLOCK_REALTIME_COARSE, &now);
	if (now.tv_sec != loop->date_second) {
		loop->date_second = now.tv_sec;
		(void)gmtime_r(&now.tv_sec, &tm);
		static const char days[][4] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
		static const char months[][4] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep",
			"Oct", "Nov", "Dec"};
		(void)snprintf(loop->date, sizeof(loop->date), "%s, %02d %s %04d %02d:%02d:%02d GMT", days[tm.tm_wday],
			tm.tm_mday, months[tm.tm_mon], tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
	}
	return loop->date;
}
