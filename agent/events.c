// SPDX-License-Identifier: Apache-2.0
/*
 * A dummy software event that counts nothing and reports mmap2 (executable ones only), comm with its exec mark, fork and
 * exit. Records are u32 type, u16 misc, u16 size, then for all of these a u32 pid first; fork and exit have the parent's pid
 * next and then the thread's. A record may wrap at the ring's end.
 */
#include "agent/events.h"

#include <errno.h>
#include <linux/perf_event.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { PATH_BYTES = 4096 };

/* The head of all records that we look at, and all of PERF_RECORD_MMAP2. */
struct record {
	struct perf_event_header header;
	uint32_t ids[4];
};
struct mmap2_record {
	struct perf_event_header header;
	uint32_t pid, tid;
	uint64_t start, len, foff;
	uint32_t major, minor;
	uint64_t inode, generation;
	uint32_t protection, flags;
	char path[PATH_BYTES + 1];
};

static size_t page_bytes(void)
{
	return (size_t)sysconf(_SC_PAGESIZE);
}

struct err *events_open(int cpu, struct events *ret)
{
	struct perf_event_attr attr = {.type = PERF_TYPE_SOFTWARE, .size = sizeof(attr), .config = PERF_COUNT_SW_DUMMY, .mmap = 1,
		.mmap2 = 1, .comm = 1, .comm_exec = 1, .task = 1, .sample_id_all = 0, .watermark = 1,
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

static struct err *mapped(const struct events *events, uint64_t at, const struct events_handler *handler)
{
	struct mmap2_record record;
	struct perf_event_header header;

	copy_out(events, at, &header, sizeof(header));
	size_t len = header.size < sizeof(record) - 1 ? header.size : sizeof(record) - 1;
	if (!handler->mapped || len <= offsetof(struct mmap2_record, path))
		return NULL;
	copy_out(events, at, &record, len);
	((char *)&record)[len] = 0;
	struct proc_map map = {.start = record.start, .end = record.start + record.len, .foff = record.foff, .inode = record.inode,
		.major = record.major, .minor = record.minor, .executable = true, .path = record.path};
	return map.start < map.end ? handler->mapped(handler->context, record.pid, &map) : NULL;
}

static struct err *hand_out(const struct events *events, uint64_t at, const struct record *record, const struct events_handler *handler)
{
	uint32_t pid = record->ids[0];

	switch (record->header.type) {
	case PERF_RECORD_MMAP2:
		TRY(mapped(events, at, handler));
		return handler->changed(handler->context, pid);
	case PERF_RECORD_MMAP:
		return handler->changed(handler->context, pid);
	case PERF_RECORD_COMM:
		if (!(record->header.misc & PERF_RECORD_MISC_COMM_EXEC))
			return NULL;
		if (handler->execed)
			TRY(handler->execed(handler->context, pid));
		return handler->changed(handler->context, pid);
	case PERF_RECORD_FORK: /* pid, ppid, tid, ptid: threads share what is known */
		if (pid == record->ids[1])
			return NULL;
		if (handler->forked)
			TRY(handler->forked(handler->context, pid, record->ids[1]));
		return handler->changed(handler->context, pid);
	case PERF_RECORD_EXIT:
		return record->ids[0] == record->ids[2] ? handler->gone(handler->gone_context, record->ids[0]) : NULL;
	case PERF_RECORD_LOST: { /* u64 id, u64 lost */
		uint64_t lost = 0;
		memcpy(&lost, &record->ids[2], sizeof(lost));
		return handler->lost(handler->context, lost);
	}
	default:
		return NULL;
	}
}

struct err *events_read(struct events *events, const struct events_handler *handler)
{
	struct perf_event_mmap_page *control = events->ring;
	/* Acquire: the records up to head were written before it; release: we have read them before the place is given back. */
	uint64_t head = __atomic_load_n(&control->data_head, __ATOMIC_ACQUIRE), tail = control->data_tail;
	struct err *e = NULL;

	while (!e && tail < head) {
		struct record record = {0};
		copy_out(events, tail, &record.header, sizeof(record.header));
		if (record.header.size < sizeof(record.header))
			break;
		size_t len = record.header.size < sizeof(record) ? record.header.size : sizeof(record);
		copy_out(events, tail, &record, len);
		e = hand_out(events, tail, &record, handler);
		tail += record.header.size;
	}
	__atomic_store_n(&control->data_tail, head, __ATOMIC_RELEASE);
	return e;
}
