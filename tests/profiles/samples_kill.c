// SPDX-License-Identifier: Apache-2.0
/*
 * kill -9 at random moments of commits, merges and sealing. A child commits batches, each with a key, and reports through a pipe what was
 * acknowledged; it is killed after a random while; the next child sends the batches again that were not acknowledged, as a
 * client does. At the end each batch must have been counted exactly once. CAIRN_KILL_ROUNDS says how often (20).
 *
 * Batch n has 1 + n % 7 samples with values that depend on n. Its time is in one of three hours, so that all of partitions happens.
 */
#include "tests/profiles/samples_fixture.h"
#include "tests/store/killed_child.h"

enum { WINDOW = 32, BATCHES_MAX = 1 << 20 };

struct state {
	uint64_t acked[BATCHES_MAX / 64]; /* bits */
	uint64_t next;			  /* all below were handed in by somebody */
};

static bool is_acked(const struct state *s, uint64_t n)
{
	return s->acked[n / 64] >> (n % 64) & 1;
}

static uint64_t value_of(uint64_t n)
{
	return 1 + n % 1000;
}

static unsigned samples_of(uint64_t n)
{
	return 1 + (unsigned)(n % 7);
}

struct handed {
	int fd;
	uint64_t number;
};

static void acknowledged(void *arg, struct err *e, const struct samples_result *result)
{
	struct handed *h = arg;

	MUST(e);
	if (result->rejected_future + result->rejected_old > 0)
		_exit(3);
	if (write(h->fd, &h->number, sizeof(h->number)) != sizeof(h->number))
		_exit(2);
	free(h);
}

static void hand_in(struct bench_store *b, int fd, uint64_t n)
{
	uint8_t key[16];
	char name[64];
	struct handed *h = malloc(sizeof(*h));

	if (!h)
		abort();
	*h = (struct handed){.fd = fd, .number = n};
	key_make(n, key);
	struct filler f = fill(b->samples, 1, key, cpu_type(), n % 5 ? "web" : "db", "main");
	for (unsigned i = 0; i < samples_of(n); i++) {
		(void)snprintf(name, sizeof(name), "leaf%llu f%u main", (unsigned long long)(n % 1009), i);
		add(&f, name, HOUR_START_MS - n % 3 * HOUR_MS + n % 600 * 1000, value_of(n));
	}
	struct err *e;
	while ((e = samples_commit(&f.batch, acknowledged, h))) {
		err_free(e);
		(void)usleep(100);
	}
}

struct client {
	struct bench_store *store;
	struct state *state;
};

static _Noreturn void work(void *arg, int fd)
{
	const struct client *client = arg;
	struct bench_store *b = client->store;
	const struct state *s = client->state;
	struct samples_counters counters;

	open_samples(b);
	for (uint64_t n = 0; n < s->next; n++)
		if (!is_acked(s, n))
			hand_in(b, fd, n);
	for (uint64_t n = s->next;; n++) {
		hand_in(b, fd, n);
		do
			samples_counters(b->samples, &counters);
		while (counters.queue_batches > WINDOW && usleep(50) == 0);
		/* Time goes on within the 15 minutes of keys; old hours are sealed and opened again. */
		if (n % 500 == 499)
			atomic_fetch_add(&b->now_ms, 100);
	}
}

static void remember(void *arg, const void *report)
{
	struct state *s = ((struct client *)arg)->state;
	uint64_t n = *(const uint64_t *)report;

	if (n >= BATCHES_MAX)
		abort();
	s->acked[n / 64] |= 1ull << (n % 64);
	if (n >= s->next)
		s->next = n + 1;
}

/* What was handed in but never acknowledged may be in or not: at most a window. All that was acknowledged is in, once. */
static void verify(struct bench_store *b, const struct state *s)
{
	struct samples_query query = {.tenant = 1};
	uint64_t sum = 0, batches = 0;

	open_samples(b);
	for (uint64_t n = 0; n < s->next; n++) {
		uint8_t key[16];
		key_make(n, key);
		if (!is_acked(s, n)) {
			/* The client sends it again: stored before or now, it counts once. */
			struct filler f = fill(b->samples, 1, key, cpu_type(), "web", "main");
			for (unsigned i = 0; i < samples_of(n); i++)
				add(&f, "again main", HOUR_START_MS, value_of(n));
			(void)commit(&f);
		}
		sum += samples_of(n) * value_of(n);
		batches++;
	}
	/* Batches above next that the last child handed in without our hearing of it. */
	for (uint64_t n = s->next; n < s->next + 4 * WINDOW; n++) {
		uint8_t key[16];
		key_make(n, key);
		struct filler f = fill(b->samples, 1, key, cpu_type(), "web", "main");
		for (unsigned i = 0; i < samples_of(n); i++)
			add(&f, "again main", HOUR_START_MS, value_of(n));
		(void)commit(&f);
		sum += samples_of(n) * value_of(n);
	}
	samples_tend(b->samples);
	uint64_t found = total(b->samples, &query);
	struct samples_counters counters;
	samples_counters(b->samples, &counters);
	(void)fprintf(stderr, "%llu batches: %llu of %llu, %llu partitions, %llu bytes\n", (unsigned long long)batches, (unsigned long long)found,
		(unsigned long long)sum, (unsigned long long)counters.partitions, (unsigned long long)counters.stored_bytes);
	if (found != sum || batches == 0)
		abort();
	samples_close(b->samples);
}

int main(void)
{
	const char *text = getenv("CAIRN_KILL_ROUNDS");
	unsigned rounds = text ? (unsigned)atoi(text) : 20;
	uint64_t seed = (uint64_t)getpid();
	struct bench_store b = {.options = {.seal_after_ms = 1}};
	struct state *s = calloc(1, sizeof(*s));

	struct client client = {.store = &b, .state = s};
	struct killed_child child = {.work = work, .remember = remember, .arg = &client, .report_size = sizeof(uint64_t)};

	if (!s)
		abort();
	temp_dir_make(b.dir);
	atomic_store(&b.now_ms, HOUR_START_MS + 600 * 1000);
	for (unsigned i = 0; i < rounds; i++)
		killed_child_run(&child, (unsigned)(50000 + random_next(&seed) % 250000));
	verify(&b, s);
	(void)printf("%u kills: each batch was counted once\n", rounds);
	free(s);
	temp_dir_remove(b.dir);
	return 0;
}
