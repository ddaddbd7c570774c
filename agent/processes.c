// SPDX-License-Identifier: Apache-2.0
/*
 * A process's texts are gathered in one buffer, in a fixed order, whose digest tells whether anything has changed. Files are
 * strangers': everything is cut at a named length, and control characters become '?', so that a label stays a line.
 */
#include "agent/processes.h"

#include "agent/exe_files.h"
#include "base/buf.h"
#include "base/digest.h"
#include "base/hex.h"
#include "base/hmap.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CGROUP_BYTES_MAX = 16 << 10, PODINFO_BYTES_MAX = 16 << 10, KEY_MAX = 128 };

struct process {
	struct process_info info;
	struct buf texts; /* what info points to */
	uint64_t digest, read_ms;
	bool stale;
};

struct processes {
	const char *proc;
	struct hmap index; /* pid -> slot */
	struct process **slots;
	uint32_t *free_slots;
	uint32_t slot_count, free_count, cap;
	uint32_t serial;
	struct process passing; /* one past PROCESSES_MAX */
};

struct err *processes_create(const char *proc, struct processes **ret)
{
	struct processes *p = calloc(1, sizeof(*p));

	if (!p)
		return err_nomem();
	p->proc = proc;
	*ret = p;
	return NULL;
}

static void process_free(struct process *process)
{
	if (process)
		buf_deinit(&process->texts);
	free(process);
}

void processes_destroy(struct processes *p)
{
	if (!p)
		return;
	for (uint32_t i = 0; i < p->slot_count; i++)
		process_free(p->slots[i]);
	buf_deinit(&p->passing.texts);
	hmap_deinit(&p->index);
	free(p->slots);
	free(p->free_slots);
	free(p);
}

size_t processes_count(const struct processes *processes)
{
	return processes->slot_count - processes->free_count;
}

/* -------------------------------------------------------------------------------------- gathering */

/* Texts as offsets while their buffer may move. */
struct gathered {
	struct buf *texts;
	size_t executable, path, service;
	struct {
		size_t key, value;
	} labels[PROCESSES_LABELS_MAX];
	size_t label_count;
	struct container container;
};

static struct err *add_text(struct gathered *g, const char *text, size_t len, size_t *ret)
{
	len = strnlen(text, len < PROCESSES_TEXT_MAX ? len : PROCESSES_TEXT_MAX);
	*ret = g->texts->len;
	TRY(buf_append(g->texts, text, len));
	TRY(buf_append(g->texts, "", 1));
	for (uint8_t *at = g->texts->data + *ret; *at; at++)
		if (*at < 0x20 || *at == 0x7f)
			*at = '?';
	return NULL;
}

static struct err *add_label(struct gathered *g, const char *key, const char *value, size_t len)
{
	if (len == 0 || value[0] == 0 || key[0] == 0 || g->label_count == PROCESSES_LABELS_MAX)
		return NULL;
	TRY(add_text(g, key, strlen(key), &g->labels[g->label_count].key));
	TRY(add_text(g, value, len, &g->labels[g->label_count].value));
	g->label_count++;
	return NULL;
}

/** At most @p max bytes; nothing when @p fd is -1 or cannot be read. */
static struct err *read_up_to(int fd, size_t max, struct buf *ret)
{
	while (fd >= 0 && ret->len < max) {
		size_t want = max - ret->len < 4096 ? max - ret->len : 4096;
		TRY(buf_reserve(ret, want));
		ssize_t got = read(fd, ret->data + ret->len, want);
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			break;
		ret->len += (size_t)got;
	}
	return NULL;
}

/** Of a file that the kernel makes: cgroup, environ. */
static struct err *read_some(const struct processes *p, uint32_t pid, const char *name, size_t max, struct buf *ret)
{
	char path[PATH_MAX];

	(void)snprintf(path, sizeof(path), "%s/%u/%s", p->proc, pid, name);
	CLEANUP(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
	return read_up_to(fd, max, ret);
}

/** Of a file of the process's own: a link that leads out of its root would give it, as a label, what only we may read. */
static struct err *read_in_root(const struct processes *p, uint32_t pid, const char *name, size_t max, struct buf *ret)
{
	char root[PATH_MAX];
	struct stat st;

	(void)snprintf(root, sizeof(root), "%s/%u/root", p->proc, pid);
	CLEANUP(closep) int fd = exe_files_open_below(root, name, &st);
	return read_up_to(fd, max, ret);
}

static struct err *gather_executable(const struct processes *p, uint32_t pid, struct gathered *g)
{
	char link[64], path[PATH_MAX];

	(void)snprintf(link, sizeof(link), "%s/%u/exe", p->proc, pid);
	ssize_t len = readlink(link, path, sizeof(path) - 1);
	path[len > 0 ? len : 0] = 0;
	char *deleted = len > 0 ? strstr(path, " (deleted)") : NULL;
	if (deleted && deleted[strlen(" (deleted)")] == 0)
		*deleted = 0;
	const char *slash = strrchr(path, '/');
	TRY(add_text(g, slash ? slash + 1 : path, PATH_MAX, &g->executable));
	return add_text(g, path, PATH_MAX, &g->path);
}

/* A value of OTEL_RESOURCE_ATTRIBUTES: percent-encoded (W3C Baggage). */
static size_t decode(const char *text, size_t len, char out[PROCESSES_TEXT_MAX])
{
	size_t n = 0;

	for (size_t i = 0; i < len && n < PROCESSES_TEXT_MAX; i++) {
		uint8_t byte = (uint8_t)text[i];
		if (byte == '%' && len - i >= 3 && hex_parse(text + i + 1, 2, &byte))
			i += 2;
		out[n++] = (char)byte;
	}
	return n;
}

static bool is_name(const char *key, size_t len, const char *name)
{
	return strlen(name) == len && memcmp(key, name, len) == 0;
}

/* key=value,key=value,.. Everything becomes a label, but service.name, which is the service's. */
static struct err *gather_attributes(struct gathered *g, const char *text, size_t len, bool has_service)
{
	while (len > 0) {
		const char *comma = memchr(text, ',', len);
		size_t piece = comma ? (size_t)(comma - text) : len;
		const char *equals = memchr(text, '=', piece);
		size_t key_len = equals ? (size_t)(equals - text) : 0;
		char value[PROCESSES_TEXT_MAX], key[KEY_MAX];
		if (key_len > 0 && key_len < sizeof(key)) {
			size_t n = decode(equals + 1, piece - key_len - 1, value);
			(void)snprintf(key, sizeof(key), "%.*s", (int)key_len, text);
			if (!is_name(text, key_len, "service.name"))
				TRY(add_label(g, key, value, n));
			else if (!has_service && n > 0 && !g->service)
				TRY(add_text(g, value, n, &g->service));
		}
		text += piece + (comma != NULL);
		len -= piece + (comma != NULL);
	}
	return NULL;
}

static const char *find_variable(const struct buf *environment, const char *name, size_t *len_ret)
{
	size_t name_len = strlen(name);

	for (size_t at = 0; at < environment->len;) {
		const char *text = (const char *)environment->data + at;
		size_t len = strnlen(text, environment->len - at);
		if (len > name_len && text[name_len] == '=' && memcmp(text, name, name_len) == 0) {
			*len_ret = len - name_len - 1;
			return text + name_len + 1;
		}
		at += len + 1;
	}
	return NULL;
}

static struct err *gather_environment(const struct processes *p, uint32_t pid, struct gathered *g)
{
	CLEANUP(buf_deinit) struct buf environment = {0};
	size_t len = 0;

	TRY(read_some(p, pid, "environ", PROCESSES_ENVIRON_MAX, &environment));
	const char *name = find_variable(&environment, "OTEL_SERVICE_NAME", &len);
	if (name && len > 0)
		TRY(add_text(g, name, len, &g->service));
	const char *attributes = find_variable(&environment, "OTEL_RESOURCE_ATTRIBUTES", &len);
	return attributes ? gather_attributes(g, attributes, len, g->service != 0) : NULL;
}

/* The downward API's file of labels: key="value" lines, the value quoted as in Go. */
static struct err *gather_pod_labels(struct gathered *g, const struct buf *file)
{
	for (size_t at = 0; at < file->len;) {
		const char *line = (const char *)file->data + at, *newline = memchr(line, '\n', file->len - at);
		size_t len = newline ? (size_t)(newline - line) : file->len - at;
		const char *equals = memchr(line, '=', len);
		size_t key_len = equals ? (size_t)(equals - line) : 0, value_len = equals ? len - key_len - 1 : 0;
		char key[KEY_MAX + sizeof("k8s.pod.label.")];
		if (key_len > 0 && key_len < KEY_MAX && value_len >= 2 && equals[1] == '"' && equals[value_len] == '"') {
			(void)snprintf(key, sizeof(key), "k8s.pod.label.%.*s", (int)key_len, line);
			TRY(add_label(g, key, equals + 2, value_len - 2));
		}
		at += len + 1;
	}
	return NULL;
}

static struct err *gather_pod_file(const struct processes *p, uint32_t pid, struct gathered *g, const char *name, const char *key)
{
	CLEANUP(buf_deinit) struct buf file = {0};

	TRY(read_in_root(p, pid, name, PODINFO_BYTES_MAX, &file));
	while (file.len > 0 && (file.data[file.len - 1] == '\n' || file.data[file.len - 1] == 0))
		file.len--;
	return file.len > 0 ? add_label(g, key, (const char *)file.data, file.len) : NULL;
}

static struct err *gather_pod(const struct processes *p, uint32_t pid, struct gathered *g)
{
	CLEANUP(buf_deinit) struct buf labels = {0};

	TRY(add_label(g, "k8s.pod.uid", g->container.pod_uid, CONTAINER_POD_UID_LEN));
	TRY(gather_pod_file(p, pid, g, "/etc/podinfo/name", "k8s.pod.name"));
	TRY(gather_pod_file(p, pid, g, "/etc/podinfo/namespace", "k8s.namespace.name"));
	TRY(read_in_root(p, pid, "/etc/podinfo/labels", PODINFO_BYTES_MAX, &labels));
	return gather_pod_labels(g, &labels);
}

static struct err *gather_container(const struct processes *p, uint32_t pid, struct gathered *g)
{
	CLEANUP(buf_deinit) struct buf cgroup = {0};

	TRY(read_some(p, pid, "cgroup", CGROUP_BYTES_MAX, &cgroup));
	container_parse((const char *)cgroup.data, cgroup.len, &g->container);
	if (g->container.runtime[0])
		TRY(add_label(g, "container.runtime.name", g->container.runtime, strlen(g->container.runtime)));
	if (g->container.unit[0] && !g->container.id[0])
		TRY(add_label(g, "systemd.unit", g->container.unit, CONTAINER_UNIT_MAX));
	return g->container.pod_uid[0] ? gather_pod(p, pid, g) : NULL;
}

static struct err *gather(const struct processes *p, uint32_t pid, struct gathered *g)
{
	char name[CONTAINER_UNIT_MAX + 1];
	size_t empty = 0;

	TRY(add_text(g, "", 0, &empty)); /* at offset 0: what is not known */
	TRY(gather_executable(p, pid, g));
	TRY(gather_environment(p, pid, g));
	TRY(gather_container(p, pid, g));
	if (!g->service && !g->container.id[0] && container_unit_service(g->container.unit, name))
		TRY(add_text(g, name, sizeof(name), &g->service));
	if (!g->service)
		g->service = g->executable;
	return NULL;
}

/* -------------------------------------------------------------------------------------- known processes */

static void settle(struct process *process, const struct gathered *g, uint32_t pid)
{
	const char *texts = (const char *)process->texts.data;
	struct process_info *info = &process->info;

	info->pid = pid;
	info->executable = texts + g->executable;
	info->executable_path = texts + g->path;
	info->service = texts + g->service;
	info->container = g->container;
	info->label_count = g->label_count;
	for (size_t i = 0; i < g->label_count; i++)
		info->labels[i] = (struct process_label){texts + g->labels[i].key, texts + g->labels[i].value};
}

static struct err *read_process(struct processes *p, struct process *process, uint32_t pid, uint64_t now_ms)
{
	CLEANUP(buf_deinit) struct buf texts = {0};
	struct gathered g = {.texts = &texts};

	TRY(gather(p, pid, &g));
	uint64_t digest = digest_xxh3_64(texts.data, texts.len) ^ digest_xxh3_64(&g.container.id, sizeof(g.container.id));
	process->read_ms = now_ms;
	process->stale = false;
	/* One that is gone keeps what was known of it. */
	bool is_gone = texts.data[g.path] == 0 && process->info.serial != 0;
	if (is_gone || (process->info.serial && digest == process->digest))
		return NULL;
	buf_deinit(&process->texts);
	process->texts = texts;
	texts = (struct buf){0};
	process->digest = digest;
	process->info.serial = ++p->serial;
	settle(process, &g, pid);
	return NULL;
}

static struct process *find(const struct processes *p, uint32_t pid)
{
	uint64_t slot = 0;

	return hmap_get(&p->index, pid, &slot) ? p->slots[slot] : NULL;
}

static struct err *grow(struct processes *p)
{
	uint32_t cap = p->cap ? 2 * p->cap : 64;
	struct process **slots = reallocarray(p->slots, cap, sizeof(struct process *));

	if (!slots)
		return err_nomem();
	p->slots = slots;
	uint32_t *free_slots = reallocarray(p->free_slots, cap, sizeof(*free_slots));
	if (!free_slots)
		return err_nomem();
	p->free_slots = free_slots;
	p->cap = cap;
	return NULL;
}

static struct err *add(struct processes *p, uint32_t pid, struct process **ret)
{
	if (processes_count(p) == PROCESSES_MAX) {
		p->passing.info.serial = 0;
		*ret = &p->passing;
		return NULL;
	}
	if (p->free_count == 0 && p->slot_count == p->cap)
		TRY(grow(p));
	uint32_t slot = p->free_count ? p->free_slots[p->free_count - 1] : p->slot_count;
	struct process *process = calloc(1, sizeof(*process));
	if (!process)
		return err_nomem();
	struct err *e = hmap_set(&p->index, pid, slot);
	if (e) {
		free(process);
		return e;
	}
	if (p->free_count)
		p->free_count--;
	else
		p->slot_count++;
	p->slots[slot] = process;
	*ret = process;
	return NULL;
}

struct err *processes_get(struct processes *p, uint32_t pid, uint64_t now_ms, const struct process_info **ret)
{
	struct process *process = find(p, pid);

	if (!process)
		TRY(add(p, pid, &process));
	bool is_due = process->stale && now_ms - process->read_ms >= PROCESSES_FRESH_MS;
	if (process->info.serial == 0 || is_due)
		TRY(read_process(p, process, pid, now_ms));
	*ret = &process->info;
	return NULL;
}

void processes_changed(struct processes *p, uint32_t pid)
{
	struct process *process = find(p, pid);

	if (process)
		process->stale = true;
}

void processes_gone(struct processes *p, uint32_t pid)
{
	uint64_t slot = 0;

	if (!hmap_get(&p->index, pid, &slot))
		return;
	process_free(p->slots[slot]);
	p->slots[slot] = NULL;
	p->free_slots[p->free_count++] = (uint32_t)slot;
	(void)hmap_remove(&p->index, pid);
}
