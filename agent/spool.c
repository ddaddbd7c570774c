// SPDX-License-Identifier: Apache-2.0
/*
 * In memory stands one small item a report, oldest first; bytes are read when they are sent. An acknowledgement sets one byte of
 * the record, which is outside of its checksum, so that a restart does not send the report again; a segment whose reports are
 * all acknowledged is deleted. Sequence numbers are reserved in blocks, so that the state file is written rarely.
 */
#include "agent/spool.h"

#include "base/digest.h"
#include "base/reader.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

static const char segment_magic[8] = "CAIRNSP1", state_magic[8] = "CAIRNSS1";

enum {
	RECORD_MAGIC = 0x43525054,
	ACKNOWLEDGED_AT = 20, /* in a record */
	CHECKSUM_AT = 24,
	STATE_BYTES = 8 + AGENT_INSTANCE_BYTES + 8 + 8,
	SEQUENCE_BLOCK = 1 << 16,
	SEQUENCE_GAP = 1 << 20, /* past the largest that is seen, when the state is lost */
	SEGMENT_BYTES_MIN = 64 << 10,
	SEGMENT_FILE_MAX = SPOOL_SEGMENT_BYTES_MAX + SPOOL_PAYLOAD_BYTES_MAX + SPOOL_RECORD_HEAD,
	FAILURES_MAX = 5,
	NAME_BYTES = 40,
};

struct item {
	uint64_t segment, sequence;
	uint32_t offset, samples;
	bool handed_out, acknowledged;
	uint8_t failures;
};

struct segment {
	uint64_t number;
	uint32_t bytes, open_items; /* not acknowledged */
};

struct spool {
	int dir, lock;
	uint64_t bytes_max, bytes;
	uint8_t instance[AGENT_INSTANCE_BYTES];
	uint64_t next_sequence, reserved; /* numbers below reserved are ours */
	struct item *items;	  /* oldest first */
	size_t count, cap, next;  /* next: nothing before it is to be handed out */
	struct segment *segments; /* oldest first; the last is written to while writing >= 0 */
	size_t segment_count, segment_cap;
	uint64_t next_segment;
	int writing;
	struct spool_counters counters;
};

/* -------------------------------------------------------------------------------------- bytes */

static void put(uint8_t *at, uint64_t value, unsigned bytes)
{
	for (unsigned i = 0; i < bytes; i++)
		at[i] = (uint8_t)(value >> 8 * i);
}

static uint64_t checksum(uint64_t sequence, uint32_t samples, const uint8_t *payload, uint32_t len)
{
	const uint64_t head[3] = {sequence, samples, len};
	const uint64_t both[2] = {digest_xxh3_64(head, sizeof(head)), digest_xxh3_64(payload, len)};

	return digest_xxh3_64(both, sizeof(both));
}

bool spool_read_record(struct reader *r, struct spool_record *ret)
{
	if (reader_left(r) == 0)
		return false;
	size_t offset = (size_t)reader_offset(r);
	uint32_t magic = reader_u32(r), len = reader_u32(r);
	uint64_t sequence = reader_u64(r);
	uint32_t samples = reader_u32(r), flags = reader_u32(r);
	uint64_t sum = reader_u64(r);
	const uint8_t *payload = reader_bytes(r, len);

	if (!payload || magic != RECORD_MAGIC || len > SPOOL_PAYLOAD_BYTES_MAX || sequence == 0 || sum != checksum(sequence, samples, payload, len)) {
		reader_fail(r);
		return false;
	}
	*ret = (struct spool_record){.sequence = sequence, .samples = samples, .payload_len = len, .offset = offset,
		.acknowledged = (flags & 0xff) != 0, .payload = payload};
	return true;
}

bool spool_read_envelope(struct reader *r, struct wire_span *ret)
{
	if (reader_left(r) == 0)
		return false;
	size_t len = reader_u32(r);
	const uint8_t *bytes = reader_bytes(r, len);

	*ret = (struct wire_span){bytes, len};
	return !r->failed;
}

static struct err *write_all(int fd, const void *bytes, size_t len, const char *what)
{
	for (size_t done = 0; done < len;) {
		ssize_t n = write(fd, (const uint8_t *)bytes + done, len - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return err_os(n < 0 ? errno : ENOSPC, "%s", what);
		done += (size_t)n;
	}
	return NULL;
}

static struct err *read_all(int dir, const char *name, size_t max, struct buf *ret)
{
	CLEANUP(closep) int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);

	if (fd < 0)
		return err_os(errno, "%s", name);
	while (ret->len < max) {
		size_t want = max - ret->len < 1 << 20 ? max - ret->len : 1 << 20;
		TRY(buf_reserve(ret, want));
		ssize_t got = read(fd, ret->data + ret->len, want);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			return err_os(errno, "%s", name);
		if (got == 0)
			break;
		ret->len += (size_t)got;
	}
	return NULL;
}

/* -------------------------------------------------------------------------------------- state */

static struct err *write_state(struct spool *s)
{
	uint8_t bytes[STATE_BYTES];

	memcpy(bytes, state_magic, sizeof(state_magic));
	memcpy(bytes + 8, s->instance, sizeof(s->instance));
	put(bytes + 8 + AGENT_INSTANCE_BYTES, s->reserved, 8);
	put(bytes + STATE_BYTES - 8, digest_xxh3_64(bytes, STATE_BYTES - 8), 8);
	CLEANUP(closep) int fd = openat(s->dir, "state.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return err_os(errno, "spool: state.new");
	TRY(write_all(fd, bytes, sizeof(bytes), "spool: state.new"));
	if (fdatasync(fd) != 0 || renameat(s->dir, "state.new", s->dir, "state") != 0 || fsync(s->dir) != 0)
		return err_os(errno, "spool: state");
	return NULL;
}

/** False: there is none, or it is damaged. */
static struct err *read_state(struct spool *s, bool *ok_ret)
{
	CLEANUP(buf_deinit) struct buf bytes = {0};
	struct err *e = read_all(s->dir, "state", STATE_BYTES + 1, &bytes);

	*ok_ret = false;
	if (e && err_errno(e) != ENOENT)
		return e;
	bool whole = !e && bytes.len == STATE_BYTES && memcmp(bytes.data, state_magic, sizeof(state_magic)) == 0;
	err_free(e);
	if (!whole)
		return NULL;
	struct reader r = reader_init(bytes.data, bytes.len, false, "state");
	reader_skip(&r, 8);
	memcpy(s->instance, reader_bytes(&r, AGENT_INSTANCE_BYTES), AGENT_INSTANCE_BYTES);
	s->reserved = reader_u64(&r);
	*ok_ret = reader_u64(&r) == digest_xxh3_64(bytes.data, STATE_BYTES - 8) && s->reserved > 0 && s->reserved < UINT64_MAX / 2;
	return NULL;
}

/* -------------------------------------------------------------------------------------- index */

static void segment_name(uint64_t number, char name[NAME_BYTES])
{
	(void)snprintf(name, NAME_BYTES, "%020" PRIu64 ".spool", number);
}

static struct err *add_segment(struct spool *s, uint64_t number, struct segment **ret)
{
	if (s->segment_count == s->segment_cap) {
		size_t cap = s->segment_cap ? 2 * s->segment_cap : 16;
		struct segment *segments = reallocarray(s->segments, cap, sizeof(*segments));
		if (!segments)
			return err_nomem();
		s->segments = segments;
		s->segment_cap = cap;
	}
	*ret = &s->segments[s->segment_count++];
	**ret = (struct segment){.number = number};
	return NULL;
}

static struct segment *find_segment(struct spool *s, uint64_t number)
{
	for (size_t i = 0; i < s->segment_count; i++)
		if (s->segments[i].number == number)
			return &s->segments[i];
	return NULL;
}

static struct err *add_item(struct spool *s, const struct item *item)
{
	if (s->count == s->cap) {
		size_t cap = s->cap ? 2 * s->cap : 64;
		struct item *items = reallocarray(s->items, cap, sizeof(*items));
		if (!items)
			return err_nomem();
		s->items = items;
		s->cap = cap;
	}
	s->items[s->count++] = *item;
	return NULL;
}

/** Deletes segment @p i, and what it still had to say is gone. */
static void remove_segment(struct spool *s, size_t i)
{
	char name[NAME_BYTES];
	size_t kept = 0, before_next = 0;
	uint64_t number = s->segments[i].number;

	segment_name(number, name);
	(void)unlinkat(s->dir, name, 0);
	for (size_t k = 0; k < s->count; k++) {
		const struct item *item = &s->items[k];
		if (item->segment == number) {
			s->counters.dropped_reports += !item->acknowledged;
			s->counters.dropped_samples += item->acknowledged ? 0 : item->samples;
			continue;
		}
		before_next += k < s->next;
		s->items[kept++] = *item;
	}
	s->count = kept;
	s->next = before_next;
	s->bytes -= s->segments[i].bytes;
	if (i + 1 == s->segment_count && s->writing >= 0) {
		(void)close(s->writing);
		s->writing = -1;
	}
	memmove(&s->segments[i], &s->segments[i + 1], (s->segment_count - i - 1) * sizeof(*s->segments));
	s->segment_count--;
}

/* -------------------------------------------------------------------------------------- opening */

static struct err *read_segment(struct spool *s, uint64_t number, bool *has_instance)
{
	CLEANUP(buf_deinit) struct buf bytes = {0};
	char name[NAME_BYTES];
	struct spool_record record;
	struct segment *segment;

	segment_name(number, name);
	TRY(read_all(s->dir, name, SEGMENT_FILE_MAX, &bytes));
	TRY(add_segment(s, number, &segment));
	segment->bytes = (uint32_t)bytes.len;
	s->bytes += bytes.len;
	struct reader r = reader_init(bytes.data, bytes.len, false, name);
	const uint8_t *magic = reader_bytes(&r, 8), *instance = reader_bytes(&r, AGENT_INSTANCE_BYTES);
	bool ours = instance && memcmp(magic, segment_magic, 8) == 0 && (!*has_instance || memcmp(instance, s->instance, AGENT_INSTANCE_BYTES) == 0);
	if (!ours) {
		s->counters.damaged++;
		return NULL;
	}
	memcpy(s->instance, instance, AGENT_INSTANCE_BYTES);
	*has_instance = true;
	while (spool_read_record(&r, &record)) {
		if (record.sequence >= s->next_sequence && record.sequence < UINT64_MAX / 2)
			s->next_sequence = record.sequence + SEQUENCE_GAP;
		if (record.acknowledged)
			continue;
		const struct item item = {
			.segment = number, .offset = (uint32_t)record.offset, .sequence = record.sequence, .samples = record.samples};
		TRY(add_item(s, &item));
		segment->open_items++;
	}
	s->counters.damaged += r.failed;
	return NULL;
}

static int compare_numbers(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;
	return *x < *y ? -1 : *x > *y;
}

static struct err *list_segments(int dir, uint64_t **ret, size_t *count_ret)
{
	CLEANUP(freep) uint64_t *numbers = NULL;
	size_t count = 0, cap = 0;
	int copy = fcntl(dir, F_DUPFD_CLOEXEC, 0);
	DIR *listing = copy >= 0 ? fdopendir(copy) : NULL;
	struct err *e = listing ? NULL : err_os(errno, "spool");

	for (const struct dirent *entry = listing ? readdir(listing) : NULL; entry && !e; entry = readdir(listing)) {
		char *end = NULL;
		uint64_t number = strtoull(entry->d_name, &end, 10);
		if (end != entry->d_name + 20 || strcmp(end, ".spool") != 0 || number == 0 || number == UINT64_MAX)
			continue;
		if (count == cap) {
			cap = cap ? 2 * cap : 16;
			uint64_t *grown = reallocarray(numbers, cap, sizeof(*numbers));
			e = grown ? NULL : err_nomem();
			numbers = grown ? grown : numbers;
		}
		if (!e)
			numbers[count++] = number;
	}
	if (listing)
		(void)closedir(listing);
	TRY(e);
	if (count > 0)
		qsort(numbers, count, sizeof(*numbers), compare_numbers);
	*ret = TAKE_PTR(numbers);
	*count_ret = count;
	return NULL;
}

static struct err *read_segments(struct spool *s, bool has_instance)
{
	CLEANUP(freep) uint64_t *numbers = NULL;
	size_t count = 0;

	TRY(list_segments(s->dir, &numbers, &count));
	s->next_sequence = s->reserved;
	for (size_t i = 0; i < count; i++) {
		TRY(err_wrap(read_segment(s, numbers[i], &has_instance), "spool"));
		s->next_segment = numbers[i] + 1;
	}
	for (size_t i = s->segment_count; i-- > 0;)
		if (s->segments[i].open_items == 0)
			remove_segment(s, i);
	if (!has_instance && getrandom(s->instance, sizeof(s->instance), 0) != sizeof(s->instance))
		return err_os(errno, "getrandom");
	return NULL;
}

static struct err *open_dir(struct spool *s, const char *dir)
{
	if (mkdir(dir, 0700) != 0 && errno != EEXIST)
		return err_os(errno, "spool %s", dir);
	s->dir = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (s->dir < 0)
		return err_os(errno, "spool %s", dir);
	s->lock = openat(s->dir, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (s->lock < 0)
		return err_os(errno, "spool %s/lock", dir);
	if (flock(s->lock, LOCK_EX | LOCK_NB) != 0)
		return err_new(ERR_BUSY, "spool %s: another cairn-agent has it", dir);
	return NULL;
}

struct err *spool_open(const char *dir, uint64_t bytes_max, struct spool **ret)
{
	struct spool *s = calloc(1, sizeof(*s));
	bool has_state = false;

	if (!s)
		return err_nomem();
	s->dir = s->lock = s->writing = -1;
	s->bytes_max = bytes_max;
	s->reserved = s->next_segment = 1;
	struct err *e = open_dir(s, dir);
	if (!e)
		e = read_state(s, &has_state);
	if (!e && !has_state)
		s->reserved = 1;
	if (!e)
		e = read_segments(s, has_state);
	if (!e) {
		s->reserved = s->next_sequence + SEQUENCE_BLOCK;
		e = write_state(s);
	}
	if (e) {
		spool_close(s);
		return e;
	}
	*ret = s;
	return NULL;
}

void spool_close(struct spool *s)
{
	if (!s)
		return;
	int *fds[] = {&s->writing, &s->lock, &s->dir};
	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		closep(fds[i]);
	free(s->items);
	free(s->segments);
	free(s);
}

const uint8_t *spool_instance(const struct spool *spool)
{
	return spool->instance;
}

struct err *spool_next_sequence(struct spool *s, uint64_t *ret)
{
	if (s->next_sequence == s->reserved) {
		s->reserved += SEQUENCE_BLOCK;
		struct err *e = write_state(s);
		if (e) {
			s->reserved -= SEQUENCE_BLOCK;
			return e;
		}
	}
	*ret = s->next_sequence++;
	return NULL;
}

/* -------------------------------------------------------------------------------------- writing */

static uint64_t segment_bytes(const struct spool *s)
{
	uint64_t part = s->bytes_max / 8;

	return part < SEGMENT_BYTES_MIN ? SEGMENT_BYTES_MIN : part > SPOOL_SEGMENT_BYTES_MAX ? SPOOL_SEGMENT_BYTES_MAX : part;
}

static struct err *begin_segment(struct spool *s)
{
	char name[NAME_BYTES];
	struct segment *segment;

	closep(&s->writing);
	s->writing = -1;
	segment_name(s->next_segment, name);
	int fd = openat(s->dir, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (fd < 0)
		return err_os(errno, "spool: %s", name);
	struct err *e = write_all(fd, segment_magic, sizeof(segment_magic), "spool");
	if (!e)
		e = write_all(fd, s->instance, sizeof(s->instance), "spool");
	if (!e && fsync(s->dir) != 0)
		e = err_os(errno, "spool");
	if (!e)
		e = add_segment(s, s->next_segment, &segment);
	if (e) {
		(void)close(fd);
		(void)unlinkat(s->dir, name, 0);
		return e;
	}
	segment->bytes = SPOOL_SEGMENT_HEAD;
	s->bytes += SPOOL_SEGMENT_HEAD;
	s->next_segment++;
	s->writing = fd;
	return NULL;
}

static struct err *make_room(struct spool *s, uint64_t bytes)
{
	if (s->writing >= 0 && s->segments[s->segment_count - 1].bytes + bytes > segment_bytes(s)) {
		closep(&s->writing);
		s->writing = -1;
	}
	while (s->segment_count > 0 && (s->bytes + bytes > s->bytes_max || s->count >= SPOOL_RECORDS_MAX))
		remove_segment(s, 0);
	return s->writing >= 0 ? NULL : begin_segment(s);
}

struct err *spool_append(struct spool *s, uint64_t sequence, uint32_t samples, const struct buf *payload)
{
	uint8_t head[SPOOL_RECORD_HEAD] = {0};

	if (payload->len > SPOOL_PAYLOAD_BYTES_MAX)
		return err_new(ERR_LIMIT, "spool: a report of %zu bytes", payload->len);
	TRY(make_room(s, sizeof(head) + payload->len));
	struct segment *segment = &s->segments[s->segment_count - 1];
	put(head, RECORD_MAGIC, 4);
	put(head + 4, payload->len, 4);
	put(head + 8, sequence, 8);
	put(head + 16, samples, 4);
	put(head + CHECKSUM_AT, checksum(sequence, samples, payload->data, (uint32_t)payload->len), 8);
	const struct item item = {.segment = segment->number, .offset = segment->bytes, .sequence = sequence, .samples = samples};
	struct err *e = write_all(s->writing, head, sizeof(head), "spool");
	if (!e)
		e = write_all(s->writing, payload->data, payload->len, "spool");
	if (!e && fdatasync(s->writing) != 0)
		e = err_os(errno, "spool");
	if (!e)
		e = add_item(s, &item);
	if (e) { /* what was written of it must not stand before the next one */
		if (ftruncate(s->writing, segment->bytes) != 0 || lseek(s->writing, segment->bytes, SEEK_SET) < 0) {
			closep(&s->writing);
			s->writing = -1;
		}
		return e;
	}
	segment->bytes += (uint32_t)(sizeof(head) + payload->len);
	segment->open_items++;
	s->bytes += sizeof(head) + payload->len;
	s->counters.written_reports++;
	return NULL;
}

/* -------------------------------------------------------------------------------------- reading */

static bool read_payload(const struct spool *s, const struct item *item, struct buf *payload)
{
	char name[NAME_BYTES];
	uint8_t head[SPOOL_RECORD_HEAD];
	struct spool_record record;

	segment_name(item->segment, name);
	CLEANUP(closep) int fd = openat(s->dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	payload->len = 0;
	if (fd < 0 || pread(fd, head, sizeof(head), item->offset) != (ssize_t)sizeof(head))
		return false;
	struct reader r = reader_init(head + 4, 4, false, name);
	uint32_t len = reader_u32(&r);
	CLEANUP(buf_deinit) struct buf bytes = {0};
	struct err *e = len > SPOOL_PAYLOAD_BYTES_MAX ? err_new(ERR_LIMIT, "%u", len) : buf_reserve(&bytes, sizeof(head) + len);
	bool ok = !e && pread(fd, bytes.data, sizeof(head) + len, item->offset) == (ssize_t)(sizeof(head) + len);
	err_free(e);
	if (!ok)
		return false;
	r = reader_init(bytes.data, sizeof(head) + len, false, name);
	if (!spool_read_record(&r, &record) || record.sequence != item->sequence)
		return false;
	e = buf_append(payload, record.payload, record.payload_len);
	ok = !e;
	err_free(e);
	return ok;
}

/** Item @p i needs no more: its byte on the disk, and its segment when it was the last. */
static void settle(struct spool *s, size_t i)
{
	static const uint8_t yes = 1;
	struct item *item = &s->items[i];
	struct segment *segment = find_segment(s, item->segment);
	char name[NAME_BYTES];

	item->acknowledged = true;
	segment_name(item->segment, name);
	CLEANUP(closep) int fd = openat(s->dir, name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
	/* Should it not be written, the report is sent again after a restart, and counted once by its number. */
	if (fd >= 0 && pwrite(fd, &yes, 1, item->offset + ACKNOWLEDGED_AT) != 1)
		s->counters.damaged++;
	if (segment && --segment->open_items == 0)
		remove_segment(s, (size_t)(segment - s->segments));
}

static bool is_waiting(const struct item *item)
{
	return !item->acknowledged && !item->handed_out;
}

bool spool_has_next(const struct spool *s)
{
	for (size_t i = s->next; i < s->count; i++)
		if (is_waiting(&s->items[i]))
			return true;
	return false;
}

bool spool_next(struct spool *s, uint64_t *sequence_ret, struct buf *payload)
{
	while (s->next < s->count) {
		size_t i = s->next++;
		struct item *item = &s->items[i];
		if (!is_waiting(item))
			continue;
		if (read_payload(s, item, payload)) {
			item->handed_out = true;
			*sequence_ret = item->sequence;
			return true;
		}
		s->counters.damaged++;
		s->counters.dropped_reports++;
		s->counters.dropped_samples += item->samples;
		settle(s, i);
	}
	return false;
}

void spool_rewind(struct spool *s)
{
	s->next = 0;
	for (size_t i = 0; i < s->count; i++)
		s->items[i].handed_out = false;
}

static size_t find_item(const struct spool *s, uint64_t sequence)
{
	size_t i = 0;

	while (i < s->count && (s->items[i].sequence != sequence || s->items[i].acknowledged))
		i++;
	return i;
}

bool spool_refused(struct spool *s, uint64_t sequence)
{
	size_t i = find_item(s, sequence);

	if (i == s->count)
		return false;
	if (++s->items[i].failures > FAILURES_MAX) {
		s->counters.dropped_reports++;
		s->counters.dropped_samples += s->items[i].samples;
		settle(s, i);
		return true;
	}
	s->items[i].handed_out = false;
	s->next = i < s->next ? i : s->next;
	return true;
}

uint32_t spool_samples(const struct spool *s, uint64_t sequence)
{
	size_t i = find_item(s, sequence);

	return i < s->count ? s->items[i].samples : 0;
}

bool spool_acknowledge(struct spool *s, uint64_t sequence)
{
	size_t i = find_item(s, sequence);

	if (i == s->count)
		return false;
	settle(s, i);
	return true;
}

void spool_counters(const struct spool *s, struct spool_counters *ret)
{
	*ret = s->counters;
	ret->bytes = s->bytes;
	for (size_t i = 0; i < s->count; i++)
		ret->reports += !s->items[i].acknowledged;
}
