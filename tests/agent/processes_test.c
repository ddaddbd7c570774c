// SPDX-License-Identifier: Apache-2.0
/* Labels of processes from a made-up /proc, and the queue of reports. */
#include "agent/processes.h"
#include "agent/queue.h"

#include <criterion/criterion.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char proc[] = "/tmp/cairn-proc-XXXXXX";
static struct processes *processes;

static void make(void)
{
	cr_assert_not_null(mkdtemp(proc));
	cr_assert_null(processes_create(proc, &processes));
}

static void clean(void)
{
	char command[64];
	processes_destroy(processes);
	snprintf(command, sizeof(command), "rm -rf %s", proc);
	cr_assert_eq(system(command), 0);
}

TestSuite(processes, .init = make, .fini = clean);

static void put(uint32_t pid, const char *name, const void *bytes, size_t len)
{
	char path[256], command[300];
	snprintf(path, sizeof(path), "%s/%u/%s", proc, pid, name);
	snprintf(command, sizeof(command), "mkdir -p $(dirname %s)", path);
	cr_assert_eq(system(command), 0);
	FILE *file = fopen(path, "we");
	cr_assert_not_null(file);
	cr_assert_eq(fwrite(bytes, 1, len, file), len);
	fclose(file);
}

#define PUT(pid, name, text) put(pid, name, text, sizeof(text) - 1)

static void set_program(uint32_t pid, const char *target)
{
	char path[256];
	PUT(pid, "cgroup", "0::/\n");
	snprintf(path, sizeof(path), "%s/%u/exe", proc, pid);
	(void)unlink(path);
	cr_assert_eq(symlink(target, path), 0);
}

static const struct process_info *get(uint32_t pid, uint64_t now_ms)
{
	const struct process_info *info = NULL;
	cr_assert_null(processes_get(processes, pid, now_ms, &info));
	return info;
}

static const char *label(const struct process_info *info, const char *key)
{
	for (size_t i = 0; i < info->label_count; i++)
		if (strcmp(info->labels[i].key, key) == 0)
			return info->labels[i].value;
	return "";
}

Test(processes, the_environment_names_the_service_and_adds_labels)
{
	set_program(7, "/usr/bin/java");
	PUT(7, "environ", "PATH=/bin\0NOT_OTEL_SERVICE_NAME=x\0OTEL_RESOURCE_ATTRIBUTES=service.name=late,team=blue%20sky,bad,=x,k=,deployment.environment=prod\0"
			  "OTEL_SERVICE_NAME=shop\0");
	const struct process_info *info = get(7, 0);
	cr_assert_str_eq(info->service, "shop");
	cr_assert_str_eq(info->executable, "java");
	cr_assert_str_eq(info->executable_path, "/usr/bin/java");
	cr_assert_str_eq(label(info, "team"), "blue sky");
	cr_assert_str_eq(label(info, "deployment.environment"), "prod");
	cr_assert_eq(info->label_count, 2u);
	set_program(8, "/usr/bin/java");
	PUT(8, "environ", "OTEL_RESOURCE_ATTRIBUTES=team=red,service.name=cart");
	cr_assert_str_eq(get(8, 0)->service, "cart");
}

Test(processes, without_one_it_is_the_systemd_service_and_then_the_program)
{
	set_program(7, "/usr/sbin/nginx (deleted)");
	PUT(7, "cgroup", "0::/system.slice/web.service\n");
	cr_assert_str_eq(get(7, 0)->service, "web");
	cr_assert_str_eq(get(7, 0)->executable, "nginx");
	cr_assert_str_eq(label(get(7, 0), "systemd.unit"), "web.service");
	set_program(8, "/usr/bin/vim");
	PUT(8, "cgroup", "0::/user.slice/session-1.scope\n");
	cr_assert_str_eq(get(8, 0)->service, "vim");
}

#define POD_CGROUP                                                       \
	"0::/kubepods/burstable/pod5d1a8c7e-0b3f-4e2d-9a6c-1f2e3d4c5b6a/" \
	"3f4e1a2b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f607\n"

Test(processes, a_pod_has_what_the_downward_api_gives)
{
	set_program(7, "/app");
	PUT(7, "cgroup", POD_CGROUP);
	PUT(7, "root/etc/podinfo/name", "web-7f\n");
	PUT(7, "root/etc/podinfo/namespace", "shop");
	PUT(7, "root/etc/podinfo/labels", "app=\"web\"\nbroken\nalso=broken\ntier=\"front\"");
	const struct process_info *info = get(7, 0);
	cr_assert_str_eq(info->container.id, "3f4e1a2b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f90a1b2c3d4e5f607");
	cr_assert_str_eq(label(info, "k8s.pod.uid"), "5d1a8c7e-0b3f-4e2d-9a6c-1f2e3d4c5b6a");
	cr_assert_str_eq(label(info, "k8s.pod.name"), "web-7f");
	cr_assert_str_eq(label(info, "k8s.namespace.name"), "shop");
	cr_assert_str_eq(label(info, "k8s.pod.label.app"), "web");
	cr_assert_str_eq(label(info, "k8s.pod.label.tier"), "front");
	/* Outside of a pod nobody's /etc/podinfo is believed. */
	set_program(8, "/app");
	PUT(8, "root/etc/podinfo/name", "fake");
	cr_assert_eq(get(8, 0)->label_count, 0u);
}

Test(processes, a_pods_links_are_followed_in_its_root_only)
{
	char path[256], secret[256];
	set_program(7, "/app");
	PUT(7, "cgroup", POD_CGROUP);
	PUT(0, "secret", "ours");
	snprintf(secret, sizeof(secret), "%s/0/secret", proc);
	/* As the kubelet lays them out, .. */
	PUT(7, "root/etc/podinfo/..2026/labels", "tier=\"front\"");
	snprintf(path, sizeof(path), "%s/7/root/etc/podinfo/..data", proc);
	cr_assert_eq(symlink("..2026", path), 0);
	snprintf(path, sizeof(path), "%s/7/root/etc/podinfo/labels", proc);
	cr_assert_eq(symlink("..data/labels", path), 0);
	/* .. and as one would lay them out that wants to see what only the agent may. */
	snprintf(path, sizeof(path), "%s/7/root/etc/podinfo/name", proc);
	cr_assert_eq(symlink(secret, path), 0);
	snprintf(path, sizeof(path), "%s/7/root/etc/podinfo/namespace", proc);
	cr_assert_eq(symlink("../../../../0/secret", path), 0);
	const struct process_info *info = get(7, 0);
	cr_assert_str_eq(label(info, "k8s.pod.label.tier"), "front");
	cr_assert_str_eq(label(info, "k8s.pod.name"), "");
	cr_assert_str_eq(label(info, "k8s.namespace.name"), "");
}

Test(processes, a_fifo_of_a_pod_does_not_hold_us_up)
{
	char path[256];
	set_program(7, "/app");
	PUT(7, "cgroup", POD_CGROUP);
	PUT(7, "root/etc/podinfo/namespace", "shop");
	snprintf(path, sizeof(path), "%s/7/root/etc/podinfo/name", proc);
	cr_assert_eq(mkfifo(path, 0600), 0);
	const struct process_info *info = get(7, 0);
	cr_assert_str_eq(label(info, "k8s.pod.name"), "");
	cr_assert_str_eq(label(info, "k8s.namespace.name"), "shop");
}

Test(processes, exec_is_seen_after_a_while_and_only_a_change_gives_another_serial)
{
	set_program(7, "/bin/sh");
	uint32_t serial = get(7, 0)->serial;
	processes_changed(processes, 7);
	cr_assert_eq(get(7, PROCESSES_FRESH_MS)->serial, serial, "the same is the same");
	set_program(7, "/bin/true");
	cr_assert_eq(get(7, 10 * PROCESSES_FRESH_MS)->serial, serial, "nobody said that it changed");
	processes_changed(processes, 7);
	cr_assert_neq(get(7, 10 * PROCESSES_FRESH_MS)->serial, serial);
	cr_assert_str_eq(get(7, 10 * PROCESSES_FRESH_MS)->executable, "true");
	processes_gone(processes, 7);
	cr_assert_eq(processes_count(processes), 0u);
	set_program(7, "/bin/cat");
	cr_assert_str_eq(get(7, 0)->executable, "cat", "a number that is used again is another process");
}

Test(processes, one_that_is_gone_keeps_what_was_known_or_its_number)
{
	char command[64];
	set_program(7, "/bin/sh");
	uint32_t serial = get(7, 0)->serial;
	snprintf(command, sizeof(command), "rm -rf %s/7", proc);
	cr_assert_eq(system(command), 0);
	processes_changed(processes, 7);
	cr_assert_eq(get(7, 5000)->serial, serial);
	const struct process_info *never = get(99, 0);
	cr_assert_eq(never->pid, 99u);
	cr_assert_str_eq(never->executable, "");
	cr_assert_str_eq(never->service, "");
}

Test(processes, hostile_files_are_cut_and_stay_one_line)
{
	size_t len = 1 << 20;
	char *huge = malloc(len);
	memset(huge, 'x', len);
	memcpy(huge, "OTEL_SERVICE_NAME=a\nb\x1b", 22);
	set_program(7, "/bin/sh");
	put(7, "environ", huge, len);
	put(7, "cgroup", huge, len);
	const struct process_info *info = get(7, 0);
	cr_assert_eq(strlen(info->service), (size_t)PROCESSES_TEXT_MAX);
	cr_assert_null(strpbrk(info->service, "\n\x1b"));
	/* More attributes than there is room for; a variable that begins where the reading ends. */
	char *at = huge + sprintf(huge, "OTEL_RESOURCE_ATTRIBUTES=");
	for (int i = 0; i < 500; i++)
		at += sprintf(at, "k%d=%%4", i);
	memset(at, 0, 1);
	memcpy(huge + PROCESSES_ENVIRON_MAX - 19, "\0OTEL_SERVICE_NAME=late", 23);
	set_program(8, "/bin/sh");
	put(8, "environ", huge, len);
	cr_assert_leq(get(8, 0)->label_count, (size_t)PROCESSES_LABELS_MAX);
	cr_assert_str_eq(get(8, 0)->service, "sh");
	free(huge);
}

Test(processes, past_the_limit_they_are_read_each_time)
{
	for (uint32_t pid = 1; pid <= PROCESSES_MAX + 2; pid++)
		cr_assert_eq(get(pid, 0)->pid, pid);
	cr_assert_eq(processes_count(processes), (size_t)PROCESSES_MAX);
	uint32_t serial = get(PROCESSES_MAX + 1, 0)->serial;
	cr_assert_neq(get(PROCESSES_MAX + 2, 0)->serial, serial);
}

/* -------------------------------------------------------------------------------------- queue */

static struct report *report_of(struct things *things, uint64_t sequence, size_t count)
{
	struct report *report = calloc(1, sizeof(*report));
	report->sequence = sequence;
	report->count = count;
	report->samples = calloc(count, sizeof(*report->samples));
	report->things = things_hold(things);
	return report;
}

Test(queue, keeps_order_counts_bytes_and_finds_what_waits)
{
	struct queue queue;
	struct things *things = NULL;
	cr_assert_null(things_create(NULL, NULL, 20, &things));
	queue_init(&queue);
	for (uint64_t i = 1; i <= 4; i++)
		queue_push(&queue, report_of(things, i, 10));
	size_t each = queue.bytes / 4;
	cr_assert_gt(each, 10 * sizeof(struct agent_sample));
	queue_set_sent(&queue, queue_waiting(&queue), true);
	queue_set_sent(&queue, queue_waiting(&queue), true);
	cr_assert_eq(queue_waiting(&queue)->sequence, 3u);
	report_destroy(queue_take(&queue, 4));
	cr_assert_null(queue_take(&queue, 4));
	queue_push(&queue, report_of(things, 5, 10));
	report_destroy(queue_take(&queue, 2));
	cr_assert_eq(queue.sent, 1u);
	cr_assert_eq(queue.bytes, 3 * each);
	queue_set_sent(&queue, queue_find(&queue, 1), false);
	cr_assert_eq(queue_waiting(&queue)->sequence, 1u);
	const uint64_t order[] = {1, 3, 5};
	for (size_t i = 0; i < 3; i++) {
		struct report *report = queue_pop(&queue);
		cr_assert_eq(report->sequence, order[i]);
		report_destroy(report);
	}
	cr_assert_null(queue_pop(&queue));
	cr_assert_eq(queue.bytes + queue.count + queue.sent, 0u);
	queue_push(&queue, report_of(things, 6, 1));
	cr_assert_eq(queue_waiting(&queue)->sequence, 6u);
	queue_deinit(&queue);
	things_release(things);
}
