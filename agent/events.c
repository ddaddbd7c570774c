// SPDX-License-Identifier: Apache-2.0
/*
 * A dummy software event that counts nothing and reports mmap2 (executable ones only), comm with its exec mark, fork and
 * exit. Records are u32 type, u16 misc, u16 size, then for all of these a u32 pid first; fork and exit have the parent's pid
 * next and then the thread's. A record ends with its time (PERF_SAMPLE_TIME), and may wrap at the ring's end. Records of all
 * CPUs are put in order of time, so that a sample finds its process as it was when it was taken.
 */
#include "agent/events.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* The head of all records that we look at. */
struct record {
	struct perf_event_header header;
	uint32_t ids[4];
};
/* All of PERF_RECORD_MMAP2; the path ends with a NUL, the record with its time. */
struct mmap2_record {
	struct perf_event_header header;
	uint32_t pid, tid;
	uint64_t start, len, foff;
	uint32_t major, minor;
	uint64_t inode, generation;
	uint32_t protection, flags;
	char path[];
};

static size_t page_bytes(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

struct err *events_open(int cpu, struct events *ret)
{
	struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE, .size = sizeof(attr), .config = PERF_COUNT_SW_DUMMY, .mmap = 1,
		.mmap2 = 1, .comm = 1, .comm_exec = 1, .task = 1, .sample_id_all = 1, .sample_type = PERF_SAMPLE_TIME,
		.use_clockid = 1, .clockid = CLOCK_MONOTONIC, .watermark = 1,
		.wakeup_watermark = (uint32_t)(EVENTS_RING_PAGES * page_bytes())};
	int fd = (int)syscall(SYS_perf_event_open, &attr, -1, cpu, -1, PERF_FLAG_FD_CLOEXEC);

	if (fd < 0)
		return err_os(errno, "perf event for processes on CPU %d", cpu);
	void *ring = mmap(NULL, (EVENTS_RING_PAGES + 1) * page_bytes(), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (ring == MAP_FAILED) {
		int error = errno;
		(void)close(fd);
		return err_os(error, "ring of the perf event for processes on CPU %d", cpu);
	}
	*ret = (struct events){.fd = fd, .ring = ring};
	return NULL;
}

void events_close(struct events *events)
{
	if (events->ring)
		(void)munmap(events->ring, (EVENTS_RING_PAGES + 1) * page_bytes());
	if (events->fd > 0)
		(void)close(events->fd);
	*events = (struct events){0};
}

static void copy_out(const struct events *events, uint64_t at, void *to, size_t len)
{
	const uint8_t *data = (const uint8_t *)events->ring + page_bytes();
	uint64_t mask = EVENTS_RING_PAGES * page_bytes() - 1;

	for (size_t i = 0; i < len; i++)
		((uint8_t *)to)[i] = data[(at + i) & mask];
}

static struct err *mapped(const uint8_t *bytes, size_t len, const struct events_handler *handler)
{
	struct mmap2_record record;

	if (!handler->mapped || len <= sizeof(record) || !memchr(bytes + sizeof(record), 0, len - sizeof(record)))
		return NULL;
	memcpy(&record, bytes, sizeof(record));
	struct proc_map map = {.start = record.start, .end = record.start + record.len, .foff = record.foff, .inode = record.inode,
		.major = record.major, .minor = record.minor, .executable = true, .path = (const char *)bytes + sizeof(record)};
	return map.start < map.end ? handler->mapped(handler->context, record.pid, &map) : NULL;
}

static struct err *hand_out(const uint8_t *bytes, size_t len, const struct events_handler *handler)
{
	struct record record = {0};

	memcpy(&record, bytes, len < sizeof(record) ? len : sizeof(record));
	uint32_t pid = record.ids[0];
	switch (record.header.type) {
	case PERF_RECORD_MMAP2:
		TRY(mapped(bytes, len, handler));
		return handler->changed(handler->context, pid);
	case PERF_RECORD_MMAP:
		return handler->changed(handler->context, pid);
	case PERF_RECORD_COMM:
		if (!(record.header.misc & PERF_RECORD_MISC_COMM_EXEC))
			return NULL;
		if (handler->execed)
			TRY(handler->execed(handler->context, pid));
		return handler->changed(handler->context, pid);
	case PERF_RECORD_FORK: /* pid, ppid, tid, ptid: threads share what is known */
		if (pid == record.ids[1])
			return NULL;
		if (handler->forked)
			TRY(handler->forked(handler->context, pid, record.ids[1]));
		return handler->changed(handler->context, pid);
	case PERF_RECORD_EXIT:
		return pid == record.ids[2] ? handler->gone(handler->context, pid) : NULL;
	case PERF_RECORD_LOST: { /* u64 id, u64 lost */
		uint64_t lost = 0;
		memcpy(&lost, &record.ids[2], sizeof(lost));
		return handler->lost(handler->context, lost);
	}
	default:
		return NULL;
	}
}

/** One record at @p at of the ring into the queue. */
static struct err *take(const struct events *events, uint64_t at, size_t len, struct events_queue *queue)
{
	struct events_item item = {.offset = queue->bytes.len};

	if (queue->count == queue->cap) {
		size_t cap = queue->cap ? 2 * queue->cap : 256;
		struct events_item *items = realloc(queue->items, cap * sizeof(*items));
		if (!items)
			return err_nomem();
		queue->items = items;
		queue->cap = cap;
	}
	TRY(buf_reserve(&queue->bytes, len));
	copy_out(events, at, queue->bytes.data + queue->bytes.len, len);
	memcpy(&item.time_ns, queue->bytes.data + queue->bytes.len + len - sizeof(item.time_ns), sizeof(item.time_ns));
	queue->bytes.len += len;
	queue->items[queue->count++] = item;
	return NULL;
}

struct err *events_take(struct events *events, struct events_queue *queue)
{
	struct perf_event_mmap_page *control = events->ring;
	/* Acquire: the records up to head were written before it; release: we have read them before the place is given back. */
	uint64_t head = __atomic_load_n(&control->data_head, __ATOMIC_ACQUIRE), tail = control->data_tail;
	struct err *e = NULL;

	while (!e && tail < head) {
		struct perf_event_header header;
		copy_out(events, tail, &header, sizeof(header));
		if (header.size < sizeof(header) + sizeof(uint64_t))
			break;
		e = take(events, tail, header.size, queue);
		tail += header.size;
	}
	__atomic_store_n(&control->data_tail, head, __ATOMIC_RELEASE);
	return e;
}

static int compare_items(const void *a, const void *b)
{
	const struct events_item *x = a, *y = b;

	if (x->time_ns != y->time_ns)
		return x->time_ns < y->time_ns ? -1 : 1;
	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

void events_sort(struct events_queue *queue)
{
	if (queue->count > queue->next) /* without items there is no array */
		qsort(queue->items + queue->next, queue->count - queue->next, sizeof(*queue->items), compare_items);
}

struct err *events_hand_out(struct events_queue *queue, uint64_t time_ns, const struct events_handler *handler)
{
	while (queue->next < queue->count && queue->items[queue->next].time_ns <= time_ns) {
		const uint8_t *bytes = queue->bytes.data + queue->items[queue->next++].offset;
		struct perf_event_header header;
		memcpy(&header, bytes, sizeof(header));
		TRY(hand_out(bytes, header.size - sizeof(uint64_t), handler));
	}
	if (queue->next == queue->count)
		queue->next = queue->count = queue->bytes.len = 0;
	return NULL;
}

void events_queue_deinit(struct events_queue *queue)
{
	buf_deinit(&queue->bytes);
	free(queue->items);
	*queue = (struct events_queue){0};
}
